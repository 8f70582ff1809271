"""The command line: fast to start, one verb per stage, clear errors, three formats."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from calm.cli import app, stages
from calm.cli.photographs import Remembered
from calm.cli.stages import THREAD_VARIABLES, write_digest
from calm.layout import Layout
from tests import forked

REPOSITORY = Path(__file__).parents[1]


class FakeCalm:
    """Stands for `calm.assistant.Calm`: judges a photograph by its width."""

    provenance: ClassVar[dict[str, Any]] = {
        "model": "fake",
        "publics": {"para": "human", "drawn": "synthetic_edits"},
        "checkpoint_sha256": "c0ffee" * 10,
        "preprocessing": {"size": [224, 224]},
    }
    asked: ClassVar[dict[str, Any]] = {}
    max_side = 1024

    @classmethod
    def from_pretrained(cls, path: Path, *, device: str = "auto", dtype: str = "float32") -> FakeCalm:
        cls.asked.update(path=path, dtype=dtype)
        if path == Path("nowhere"):
            # As calm.assistant does it: the error is raised by calm's own code.
            from calm.io import read_table

            read_table(path / "model", None)  # type: ignore[arg-type]
        return cls()

    def public(self, name: str | None = None) -> str:
        if name not in (None, "para", "drawn"):
            raise ValueError(f"this model does not know the taste of '{name}'")
        return name or "para"

    def score(
        self, images: Sequence[Image.Image], batch_size: int, public: str | None, *, written: bool
    ) -> list[SimpleNamespace]:
        self.asked.update(batch_size=batch_size, public=public, written=written)
        return [
            SimpleNamespace(
                text=None, expectation=image.width / 100, regression=5.0, raw="?", spread=1.5, percentile=40.0
            )
            for image in images
        ]

    def comment(self, images: Sequence[Image.Image], batch_size: int) -> list[str]:
        return [f'{image.width} wide, "calm"' for image in images]

    def suggest(self, images: Sequence[Image.Image], top: int, batch_size: int) -> list[list[SimpleNamespace]]:
        return [
            [
                SimpleNamespace(attribute="tilt", state="left", text=f"Turn {n}.", probability=1 - n / 10)
                for n in range(top)
            ]
            for _ in images
        ]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: two photographs, a folder with a third, a broken one, a text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import_module("calm.assistant.inputs")  # reads the photographs, as ever
    monkeypatch.setitem(sys.modules, "calm.assistant", SimpleNamespace(Calm=FakeCalm))  # type: ignore[arg-type]
    (tmp_path / "album/deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name, width in {"a.jpg": 400, "b.PNG": 300, "album/deep/c.jpg": 200}.items():
        Image.effect_noise((width, 100), 40).convert("RGB").save(name)
    whole = Path("a.jpg").read_bytes()
    Path("broken.jpg").write_bytes(whole[: len(whole) // 2])
    Path("album/notes.txt").write_text("no photograph")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_help_starts_without_numpy_torch_or_pandas() -> None:
    code = (
        "import sys; from calm.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pandas', 'pyarrow', 'transformers', 'dvc', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "filter-leakage" in done.stdout


def test_version_is_the_package_s() -> None:
    from calm import __version__

    assert run("--version").stdout == f"calm {__version__}\n"


def test_a_stage_gets_the_threads_of_params_before_libraries_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "64")
    params, layout = stages.start("pretrain")
    assert {os.environ[name] for name in THREAD_VARIABLES} == {str(params.threads.pretrain)}
    assert layout == Layout()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "nonsense"], "'nonsense' is not in data.datasets of params.yaml; there are: photos"),
        (["pretrain", "scores"], "there are: attributes, alignment"),
        (["finetune", "attributes"], "there are: comments, scores"),
        (["evaluate", "nonsense"], "evaluation.tasks"),
        (["ablate", "nonsense"], "ablations"),
        (["profile", "use", "nonsense"], "there is no profile 'nonsense'"),
    ],
)
def test_names_that_params_do_not_have_are_one_message(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_param_is_one_message(tmp_path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seed: 17", "sead: 17"))
    here = Path.cwd()
    try:
        result = run("-C", str(tmp_path), "split")
    finally:
        os.chdir(here)
    assert result.exit_code == 1
    assert "sead: unknown key" in result.stderr


def test_outside_of_a_checkout_the_message_says_where_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "-C DIR" in run("report").stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "start", lambda stage: json.loads("{"))  # a ValueError, but not one of calm's
    with pytest.raises(json.JSONDecodeError):
        CliRunner().invoke(app, ["split"], catch_exceptions=False)


def test_the_digest_of_a_result_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = layout.result("scoring")
    (folder / "plots").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "plots/a.svg").write_text("")
    write_digest(layout, "scoring", folder)
    digest = json.loads(layout.digest("scoring").read_text())
    assert list(digest) == ["metrics.json", "plots/a.svg"]
    assert digest["plots/a.svg"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_metrics_are_a_table_of_headlines_with_what_stands_beside_them() -> None:
    from rich.console import Console

    from calm.cli.results import table
    from calm.evaluation.stage import find_task
    from calm.report.tables import Row, Section

    rows = (
        Row("SRCC, expectation", "0.512", "0.401 to 0.620", "chance 0.000", ""),
        Row("SPICE", "not available", "", "", "no jars"),
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table([Section("scoring", find_task("scoring"), rows, "synthetic", "items: 9")]))
    shown = console.export_text()
    for text in ("scoring", "0.512", "0.401 to 0.620", "chance 0.000", "not available", "no jars", "synthetic"):
        assert text in shown
    console.print(table([Section("scoring", find_task("scoring"), rows, "synthetic", "items: 9")], shown=1))
    assert "SPICE" not in console.export_text()


def test_metrics_before_any_run_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert "results/attributes/metrics.json does not exist: run" in run("metrics").stderr


@pytest.mark.usefixtures("photographs")
def test_scores_as_json_are_a_list_of_objects_in_the_order_of_the_files() -> None:
    result = run("score", "--json", "b.PNG", "album", "*.jpg")
    rows = json.loads(result.stdout)
    assert [row["file"] for row in rows] == ["b.PNG", "album/deep/c.jpg", "a.jpg"]
    assert rows[0]["score"] == rows[0]["regression"] == 5.0
    assert rows[0]["text"] is None
    assert rows[0]["checkpoint"] == "c0ffeec0ffee"
    assert len(rows[0]["preprocessing"]) == 12
    assert result.exit_code == 1  # *.jpg holds a broken one
    assert "broken.jpg: truncated or damaged" in result.stderr


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--sort"], [3.0, 2.0, 1.0]),
        (["--top", "2"], [3.0, 2.0]),
        (["--min", "1.5"], [1.5, 2.0]),
        (["--min", "1.5", "--top", "1"], [2.0]),
    ],
)
def test_the_best_of_a_folder_can_be_asked_for(options: list[str], kept: list[float], tmp_path: Path) -> None:
    widths = [150, 100, 200] if "--min" in options else [200, 100, 300]
    names = [tmp_path / f"{number}.png" for number in range(3)]
    for name, width in zip(names, widths, strict=True):
        Image.new("RGB", (width, 100)).save(name)
    result = run("score", "--json", "--readout", "expectation", *options, *map(str, names))
    assert [row["score"] for row in json.loads(result.stdout)] == kept


@pytest.mark.usefixtures("photographs")
def test_an_answer_that_was_given_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("score", "--json", "a.jpg", "broken.jpg", "b.PNG")
    assert (Path("cache/calm/answers")).is_dir()
    asked: list[int] = []
    whole = FakeCalm.score

    def score(calm: FakeCalm, images: Sequence[Image.Image], *options: Any, **named: Any) -> list[SimpleNamespace]:
        asked.append(len(images))
        return whole(calm, images, *options, **named)

    monkeypatch.setattr(FakeCalm, "score", score)
    assert run("score", "--json", "a.jpg", "broken.jpg", "b.PNG").stdout == first.stdout and not asked
    shutil.copy("a.jpg", "same.jpg")  # known by what it holds
    again = json.loads(run("score", "--json", "album", "same.jpg", "b.PNG").stdout)
    assert [Path(row["file"]).name for row in again] == ["c.jpg", "same.jpg", "b.PNG"] and asked == [1]
    for other in (["--public", "drawn"], ["--readout", "expectation"], ["--no-cache"]):
        run("score", "--json", *other, "a.jpg")
    assert asked == [1, 1, 1, 1]
    monkeypatch.setattr(FakeCalm, "provenance", FakeCalm.provenance | {"checkpoint_sha256": "0" * 60})
    run("score", "--json", "a.jpg")
    assert asked == [1, 1, 1, 1, 1]


@pytest.mark.usefixtures("photographs")
def test_answers_are_given_anew_once_code_or_catalogue_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    files = [package / name for name in ("__init__.py", "catalogue.yaml", "notes.md")]
    for file in files:
        file.write_text("")
        os.utime(file, (1, 1))
    monkeypatch.setattr("calm.__file__", str(files[0]))
    keys = [Remembered({}).key("a.jpg")]
    for changed, file in enumerate(files):
        os.utime(file, (changed + 2, changed + 2))
        keys.append(Remembered({}).key("a.jpg"))
    assert len(set(keys)) == 3 and keys[2] == keys[3]  # the last file decides no answer


@pytest.mark.usefixtures("photographs")
def test_where_nothing_can_be_kept_answers_are_given_all_the_same() -> None:
    Path("cache").write_text("no folder")
    result = run("score", "--json", "a.jpg")
    assert len(json.loads(result.stdout)) == 1 and result.exit_code == 0
    assert "answers cannot be kept here" in result.stderr


@pytest.mark.usefixtures("photographs")
def test_the_readout_called_score_can_be_chosen() -> None:
    rows = json.loads(run("score", "--json", "--readout", "expectation", "a.jpg").stdout)
    assert (rows[0]["score"], rows[0]["regression"]) == (4.0, 5.0)


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(("options", "written"), [([], True), (["text"], True), (["regression"], False)])
def test_the_text_is_read_for_those_alone_who_see_it(options: list[str], written: bool) -> None:
    rows = json.loads(run("score", "--json", *(f"--readout={name}" for name in options), "a.jpg").stdout)
    assert ("text" in rows[0]) == FakeCalm.asked["written"] == written
    assert {"expectation", "regression", "spread", "percentile"} <= rows[0].keys()


@pytest.mark.usefixtures("photographs")
def test_csv_is_quoted_and_has_one_line_per_suggestion() -> None:
    comments = list(csv.DictReader(io.StringIO(run("comment", "--csv", "a.jpg").stdout)))
    assert comments[0]["comment"] == '400 wide, "calm"'
    suggestions = list(csv.DictReader(io.StringIO(run("suggest", "--csv", "--top", "2", "a.jpg", "b.PNG").stdout)))
    assert [(row["file"], row["text"]) for row in suggestions] == [
        ("a.jpg", "Turn 0."),
        ("a.jpg", "Turn 1."),
        ("b.PNG", "Turn 0."),
        ("b.PNG", "Turn 1."),
    ]
    told = {"file", "attribute", "state", "text", "probability", "model", "checkpoint", "preprocessing"}
    assert set(suggestions[0]) == told


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(
    ("form", "read"), [("--csv", lambda text: list(csv.DictReader(io.StringIO(text)))), ("--json", json.loads)]
)
def test_a_run_that_is_stopped_leaves_what_was_found(
    form: str, read: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(calm: FakeCalm, images: Sequence[Image.Image], *options: Any, **named: Any) -> list[SimpleNamespace]:
        if images[0].width == 300:
            raise KeyboardInterrupt
        return whole(calm, images, *options, **named)

    whole = FakeCalm.score
    monkeypatch.setattr(FakeCalm, "score", score)
    result = run("score", form, "--batch-size", "1", "a.jpg", "b.PNG", "album")
    assert [row["file"] for row in read(result.stdout)] == ["a.jpg"]
    assert result.exit_code != 0


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("form", ["--csv", "--json", None])
def test_a_name_that_no_letters_can_say_costs_no_row(form: str | None) -> None:
    strange = os.fsdecode(b"caf\xe9.jpg")  # Latin-1, on a disk that elsewhere holds UTF-8
    shutil.copy("a.jpg", strange)
    result = run("score", *([form] if form else []), strange, "a.jpg")
    assert result.exit_code == 0 and r"caf\udce9.jpg" in result.stdout
    if form == "--json":
        assert [row["file"] for row in json.loads(result.stdout)][1] == "a.jpg"


@pytest.mark.usefixtures("photographs")
def test_a_reader_who_has_seen_enough_of_a_csv_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w")
    monkeypatch.setattr("calm.cli.printing.sys", SimpleNamespace(stdout=closed))
    result = run("score", "--csv", "a.jpg")
    assert result.exit_code == 1 and result.stderr == ""
    with suppress(BrokenPipeError):
        closed.close()


@pytest.mark.usefixtures("photographs")
def test_the_table_shows_all_readouts_and_what_made_them() -> None:
    result = run("score", "a.jpg", "a.jpg")
    assert result.exit_code == 0
    for shown in (
        "text",
        "expectation",
        "regression",
        "spread",
        "4.00",
        "5.00",
        "1.50",
        "checkpoint c0ffeec0ffee",
        "preprocessing",
    ):
        assert shown in result.stdout
    assert result.stdout.count("a.jpg") == 1


@pytest.mark.usefixtures("photographs")
def test_another_public_format_and_batch_are_asked_for_and_told() -> None:
    result = run("score", "--public", "drawn", "--dtype", "bfloat16", "--batch-size", "3", "a.jpg")
    assert FakeCalm.asked == {"path": None, "dtype": "bfloat16", "batch_size": 3, "public": "drawn", "written": True}
    assert "public drawn (synthetic_edits scores)" in result.stdout
    assert "public para (human scores)" in run("score", "a.jpg").stdout
    assert FakeCalm.asked["dtype"] == "float32"
    assert "does not know the taste of 'mine'" in str(run("score", "--public", "mine", "a.jpg").exception)


def test_with_a_checkout_named_photographs_stay_those_of_the_folder_one_is_in(
    photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkout = tmp_path_factory.mktemp("checkout")
    result = run("-C", str(checkout), "score", "--model", "models/mine", "--json", "a.jpg")
    assert [row["file"] for row in json.loads(result.stdout)] == ["a.jpg"]
    assert FakeCalm.asked["path"] == checkout / "models/mine"
    assert Path.cwd() == photographs


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("installed", [False, True])
def test_what_a_folder_holds_beside_photographs_is_counted(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm.cli.photographs.find_spec", lambda name: object() if installed else None)
    folder = Path("phone")
    folder.mkdir()
    shutil.copy("a.jpg", folder / "c.jpg")
    Image.open("a.jpg").save(folder / "d.HEIC")
    for name in ("._c.jpg", ".DS_Store", "one.jxl", "two.JXL", "notes.txt"):
        (folder / name).write_bytes(b"?")
    result = run("score", "--json", "phone")
    assert result.exit_code == 0 and len(json.loads(result.stdout)) == 2
    assert "phone: skipped, in formats that calm does not read: 2 .jxl\n" in result.stderr
    assert "phone: skipped, hidden: 1 (phone/._c.jpg)\n" in result.stderr
    (folder / "three.dng").write_bytes(b"?")
    result = run("score", "--json", "phone")
    told = "phone/three.dng: " if installed else "1 .dng, 2 .jxl; pip install rawpy to read cameras' RAW files"
    assert told in result.stderr and result.exit_code == installed


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("name", ["album", "album/**/*.jpg", "**/*.jpg"])
def test_linked_folders_are_entered_once_by_folders_and_globs(name: str) -> None:
    for link, to in {"album/loop": ".", "album/again": "deep", "album/other": "../beside"}.items():
        Path(link).symlink_to(to)
    Path("beside").mkdir()
    shutil.copy("a.jpg", "beside/d.jpg")
    Path("broken.jpg").unlink()
    result = run("score", "--json", name)
    files = [Path(row["file"]) for row in json.loads(result.stdout)]
    assert sorted(file.name for file in files) == (
        ["c.jpg", "d.jpg"] if "album" in name else ["a.jpg", "c.jpg", "d.jpg"]
    )
    assert "links to folders that were met already: " in result.stderr and "album/loop" in result.stderr
    assert result.exit_code == 0


@pytest.mark.usefixtures("photographs")
def test_a_folder_that_may_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str) -> Any:
        if "deep" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    scan = os.scandir
    shutil.copy("a.jpg", "album/d.jpg")
    monkeypatch.setattr(os, "scandir", scandir)  # root, as whom tests may run, reads everything
    result = run("score", "--json", "album", "album/deep")
    assert [row["file"] for row in json.loads(result.stdout)] == ["album/d.jpg"]
    assert result.stderr.count("error: album/deep: Permission denied") == 2 and result.exit_code == 1


@pytest.mark.usefixtures("photographs")
def test_a_narrow_picture_gets_its_answer_with_a_warning() -> None:
    for name, size in {"dot.png": (1, 1), "strip.png": (20_000, 200)}.items():
        Image.new("RGB", size).save(name)
    result = run("score", "--json", "dot.png", "strip.png", "a.jpg")
    assert len(json.loads(result.stdout)) == 3 and result.exit_code == 0
    assert "dot.png: 1x1 pixels, as calm looks at it: too narrow for an answer to mean much" in result.stderr
    assert "strip.png: 1024x10 pixels" in result.stderr and "a.jpg: " not in result.stderr


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("form", ["--csv", "--json", None])
def test_a_full_disk_is_one_message(form: str | None, tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    done = forked.start(score_by_a_fake, *([form] if form else []), out="/dev/full", errors=errors)
    done.join()
    assert done.exitcode == 1
    assert errors.read_text() == "error: [Errno 28] No space left on device: what was written last is not whole\n"


def score_by_a_fake(*options: str) -> None:
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as a person's shell has it, whatever PYTHONUNBUFFERED says here
    import_module("calm.assistant.inputs")
    sys.modules["calm.assistant"] = SimpleNamespace(Calm=FakeCalm)  # type: ignore[assignment]
    app(["score", *options, "a.jpg"])


@pytest.mark.usefixtures("photographs")
def test_photographs_are_read_ahead_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from calm.cli.photographs import THREADS, read_photographs

    begun: list[Path] = []

    def opened(path: Path, max_side: int) -> Image.Image:
        begun.append(path)
        return Image.new("RGB", (99, 99))

    monkeypatch.setattr("calm.assistant.inputs.opened", opened)
    names = [f"{number}.jpg" for number in range(200)]
    taken = 0
    for batch, readable in read_photographs(names, 8, 288):
        taken += len(batch)
        assert list(readable) == batch == names[taken - 8 : taken]
        assert len(begun) <= taken + 2 * THREADS
    assert taken == 200


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_path_is_not_cut_off_in_a_table(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = SimpleNamespace(isatty=lambda: terminal)
    monkeypatch.setattr("calm.cli.printing.sys", SimpleNamespace(stdout=stdout, stderr=sys.stderr))
    monkeypatch.setenv("COLUMNS", "90")
    folder = Path("a" * 60, "b" * 60)
    folder.mkdir(parents=True)
    shutil.copy("a.jpg", folder / "c.jpg")
    lines = run("score", str(folder)).stdout.splitlines()
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(cells) == str(folder / "c.jpg") and (len(cells) > 1) == terminal


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "missing.jpg"], "missing.jpg: no such file or folder"),
        (["score", ""], "an empty name: is a variable of the shell not set?"),
        (["score", "empty"], "empty: no photograph in this folder"),
        (["score", f"{'x' * 300}.jpg"], ".jpg: File name too long"),
        (["comment", "*.webp"], "*.webp: no file matches"),
        (["suggest", "album/notes.txt"], "notes.txt: not a photograph in an allowed format"),
        (["score", "broken.jpg"], "broken.jpg: truncated or damaged"),
        (["score", "a.jpg", "--model", "nowhere"], "nowhere/model does not exist: run the stage that makes it"),
        (["score", "a.jpg", "--json", "--csv"], "--json and --csv exclude one another"),
    ],
)
def test_what_cannot_be_judged_is_one_message_and_exit_code_1(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.usefixtures("photographs")
def test_one_unreadable_file_does_not_spoil_the_others() -> None:
    result = run("score", "--json", "broken.jpg", "a.jpg", "missing.jpg")
    assert [row["file"] for row in json.loads(result.stdout)] == ["a.jpg"]
    assert result.exit_code == 1
    assert result.stderr.count("error:") == 2

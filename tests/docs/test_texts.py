"""docs/texts.md states what the paper's run would cost: exactly what `--dry-run` prints for profile `paper`.

`python -m tests.docs.test_texts` writes it there.
"""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from calm.layout import Layout
from calm.params import parse_params
from calm.profiles import merged
from calm.writing.checks import MOST_BYTES
from calm.writing.ledger import _TEXT_TOKENS
from calm.writing.requests import TEMPLATES
from calm.writing.settings import OpenAIWriter
from calm.writing.stage import dry_run

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/texts.md"
_GENERATED = re.compile(r"(<!-- generated: [^\n]* -->\n```\n)(.*?)(```\n<!-- end -->)", re.DOTALL)


def paper_cost(root: Path) -> str:
    """What `calm generate-texts --dry-run` prints in a fresh checkout with profile `paper`."""
    text = merged("paper", REPOSITORY / "params.yaml", REPOSITORY / "profiles")
    return dry_run(parse_params(YAML(typ="safe").load(text), "paper"), Layout(root)) + "\n"


def test_the_cost_of_the_papers_run_is_what_a_dry_run_prints(tmp_path: Path) -> None:
    found = _GENERATED.search(PAGE.read_text(encoding="utf-8"))
    assert found, "docs/texts.md has no generated part"
    assert found.group(2) == paper_cost(tmp_path), "run `python -m tests.docs.test_texts`"
    assert re.search(r"prices .*USD per million tokens, 20\d\d-\d\d", found.group(2))


def test_what_the_page_says_of_numbers_and_files_is_so() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"{MOST_BYTES} bytes" in page
    assert f"{_TEXT_TOKENS} tokens as a text" in page
    for name in ("system.j2", "guidance.j2", "styles.yaml", "instruction.j2"):
        assert name in page
        assert (TEMPLATES / name).is_file()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example
    section = YAML(typ="safe").load(example.group(1))["attributes"]["texts"]["writer"]
    assert OpenAIWriter.model_validate(section).delivery.kind == "chat"


if __name__ == "__main__":
    PAGE.write_text(_GENERATED.sub(rf"\g<1>{paper_cost(Path('nowhere'))}\g<3>", PAGE.read_text(encoding="utf-8")))

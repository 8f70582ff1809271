"""Write requirements/EXTRA.lock for an extra of pyproject.toml that is installed into a folder of its own.

    python requirements/apart.py EXTRA     (from the repository; needs uv)
    python requirements/apart.py harness   (the lock of harness/lmms_eval)

The lock holds what the extra needs and base.lock does not hold, or not in a version that the extra can use: with the
folder first on PYTHONPATH a process sees that, and everything else as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(r"^([a-z0-9][^\s=]*==\S+)(?: .*)?\n(?: .*\n)*", re.MULTILINE)  # a pin and its hashes
# torch is torch.txt's, and what only its CUDA build wants comes with it. pillow is base.lock's: gradio asks for an
# older one out of caution, and another decoder would give other pixels, so other scores.
OVERRIDE = "torch; python_version < '0'\npillow; python_version < '0'\n"


HARNESS = HERE.parent / "harness/lmms_eval"


def main(extra: str) -> None:
    """Resolve what is wanted, and write the lock where it belongs."""
    if extra == "harness":
        texts = [(HARNESS / name).read_text(encoding="utf-8") for name in ("requirements.in", "unwanted.txt")]
        lock(texts[0], texts[1], HARNESS / "requirements.lock")
    else:
        project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lock("\n".join(project["optional-dependencies"][extra]) + "\n", OVERRIDE, HERE / f"{extra}.lock")


def lock(requirements: str, without: str, file: Path) -> None:
    """Resolve with base.lock's versions where they fit, then leave out what is the same there."""
    base = (HERE / "base.lock").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        wanted, override, out = (Path(folder) / name for name in ("wanted.in", "override.txt", "out.lock"))
        wanted.write_text(requirements, encoding="utf-8")
        override.write_text(without, encoding="utf-8")
        out.write_text(base, encoding="utf-8")  # uv prefers versions of the file that it replaces
        options = ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command = ["uv", "pip", "compile", str(wanted), "--override", str(override), *options, "-o", str(out)]
        subprocess.run(command, check=True)
        blocks = {found[1]: found[0] for found in BLOCK.finditer(out.read_text(encoding="utf-8"))}
    there = {found[1] for found in BLOCK.finditer(base)}
    file.write_text("".join(block for pin, block in blocks.items() if pin not in there), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

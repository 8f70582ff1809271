"""The stage in a process of its own: `python -m tests.writing.killable URL ROOT chat|batch`."""

from __future__ import annotations

import sys
from pathlib import Path

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.layout import Layout
from calm.writing.stage import generate_texts
from tests.writing.conftest import BATCH, FEW, embed, writer_params

if __name__ == "__main__":
    url, root, kind = sys.argv[1:]
    delivery = BATCH if kind == "batch" else {"kind": "chat", "concurrency": 4}
    few = Taxonomy(tuple(one for one in taxonomy().attributes if one.name in FEW))
    generate_texts(writer_params(url, delivery=delivery), Layout(Path(root)), embed, few)

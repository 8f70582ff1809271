"""Section `report` of params.yaml."""

from __future__ import annotations

from calm.settings import PositiveInt, Section


class ReportParams(Section):
    """What the page shows."""

    examples: PositiveInt
    max_new_tokens: PositiveInt

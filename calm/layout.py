"""Where each artifact of a checkout lives. dvc.yaml declares the same paths; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class Place:
    """A path below the root of a checkout, as an attribute of its `Layout`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, layout: Layout, owner: type) -> Path:
        return layout.root / self.path


@dataclass(frozen=True)
class Layout:
    """The folders and files of one checkout, all below `root`."""

    root: Path = Path(".")

    # One parquet per dataset: the split of every item and the rule that put it there.
    splits = Place("data/splits")
    # One parquet per dataset: which single raters are for training and which are held out.
    rater_splits = Place("data/splits/raters")
    # One parquet per dataset: what personalised scoring sees of each held-out rater, and what it ranks.
    support_sets = Place("data/splits/support")
    # One parquet per role: the items that may be used for it, after the leakage filter.
    lists = Place("data/lists")
    # Guidance texts of the attribute states.
    texts = Place("data/texts/attributes.parquet")
    # Ways of asking for each task's answer.
    prompts = Place("data/texts/prompts.parquet")
    # Written texts that were not taken, with the reason.
    rejected_texts = Place("data/texts/rejected.parquet")
    # Metrics of the quality gate of guidance texts.
    text_gate = Place("data/texts/gate.json")
    # Each guidance text's state and the state it is nearest to.
    text_confusion = Place("data/texts/confusion.csv")
    # Requests to paid services and their answers: kept for ever, the output of no stage.
    ledger = Place("data/ledger")
    # Prompts and answers, one parquet per use.
    instructions = Place("data/instructions")
    # Learning curves, one csv per training run.
    curves = Place("results/curves")
    # The page; a Markdown twin lies beside it.
    report = Place("results/report.html")

    def raw(self, dataset: str) -> Path:
        """Manifest of what was fetched for a dataset."""
        return self.root / "data/raw" / dataset

    def downloads(self, dataset: str) -> Path:
        """Files downloaded for a dataset, kept until a person removes them; never an output."""
        return self.root / "data/downloads" / dataset

    def prepared(self, dataset: str) -> Path:
        """Shards and tables of a dataset."""
        return self.root / "data/prepared" / dataset

    def pretrained(self, run: str) -> Path:
        """Weights of one pre-training run."""
        return self.root / "models/pretrain" / run

    def finetuned(self, run: str) -> Path:
        """Weights of one fine-tuning run; the last one is the model people use."""
        return self.root / "models/finetune" / run

    def curve(self, run: str) -> Path:
        """Learning curve of one training run."""
        return self.curves / f"{run}.csv"

    def result(self, task: str) -> Path:
        """Metrics, predictions and plots of one evaluation task."""
        return self.root / "results" / task

    def ablation(self, name: str) -> Path:
        """Metrics of one ablation."""
        return self.root / "results/ablate" / name

    def cross_validation(self, name: str) -> Path:
        """Metrics and predictions of one cross-validation."""
        return self.root / "results/cross_validation" / name

    def digest(self, name: str) -> Path:
        """Hashes of one result's files; the report depends on the folder of them."""
        return self.root / "results/digests" / f"{name}.json"

    def state(self, stage: str) -> Path:
        """Resumable state of a stage that is still running; never an output."""
        return self.root / ".state" / stage

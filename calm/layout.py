"""Where each artifact of a checkout lives. dvc.yaml declares the same paths; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders and files of one checkout, all below `root`."""

    root: Path = Path(".")

    def raw(self, dataset: str) -> Path:
        """Manifest of what was fetched for a dataset."""
        return self.root / "data/raw" / dataset

    def downloads(self, dataset: str) -> Path:
        """Files downloaded for a dataset, kept until a person removes them; never an output."""
        return self.root / "data/downloads" / dataset

    def prepared(self, dataset: str) -> Path:
        """Shards and tables of a dataset."""
        return self.root / "data/prepared" / dataset

    @property
    def splits(self) -> Path:
        """One parquet per dataset: the split of every item and the rule that put it there."""
        return self.root / "data/splits"

    @property
    def rater_splits(self) -> Path:
        """One parquet per dataset: which single raters are for training and which are held out."""
        return self.splits / "raters"

    @property
    def support_sets(self) -> Path:
        """One parquet per dataset: what personalised scoring sees of each held-out rater, and what it ranks."""
        return self.splits / "support"

    @property
    def lists(self) -> Path:
        """One parquet per role: the items that may be used for it, after the leakage filter."""
        return self.root / "data/lists"

    @property
    def texts(self) -> Path:
        """Guidance texts of the attribute states."""
        return self.root / "data/texts/attributes.parquet"

    @property
    def prompts(self) -> Path:
        """Ways of asking for each task's answer."""
        return self.root / "data/texts/prompts.parquet"

    @property
    def rejected_texts(self) -> Path:
        """Written texts that were not taken, with the reason."""
        return self.root / "data/texts/rejected.parquet"

    @property
    def text_gate(self) -> Path:
        """Metrics of the quality gate of guidance texts."""
        return self.root / "data/texts/gate.json"

    @property
    def text_confusion(self) -> Path:
        """Each guidance text's state and the state it is nearest to."""
        return self.root / "data/texts/confusion.csv"

    @property
    def ledger(self) -> Path:
        """Requests to paid services and their answers: kept for ever, the output of no stage."""
        return self.root / "data/ledger"

    @property
    def instructions(self) -> Path:
        """Prompts and answers, one parquet per use."""
        return self.root / "data/instructions"

    def pretrained(self, run: str) -> Path:
        """Weights of one pre-training run."""
        return self.root / "models/pretrain" / run

    def finetuned(self, run: str) -> Path:
        """Weights of one fine-tuning run; the last one is the model people use."""
        return self.root / "models/finetune" / run

    def curve(self, run: str) -> Path:
        """Learning curve of one training run."""
        return self.root / "results/curves" / f"{run}.csv"

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

    @property
    def curves(self) -> Path:
        """Learning curves, one csv per training run."""
        return self.root / "results/curves"

    @property
    def report(self) -> Path:
        """The page; a Markdown twin lies beside it."""
        return self.root / "results/report.html"

    def state(self, stage: str) -> Path:
        """Resumable state of a stage that is still running; never an output."""
        return self.root / ".state" / stage

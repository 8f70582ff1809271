"""Where each artifact of a checkout lives. dvc.yaml declares the same paths; a test holds the two together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Place:
    """A path below the root of a checkout, as an attribute of its `Layout`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, layout: Layout, owner: type) -> Path:
        return layout.root / self.path


class Places:
    """A path for each name of a dataset, run, task or stage, as a function of a `Layout`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, layout: Layout, owner: type) -> Callable[[str], Path]:
        return lambda name: layout.root / self.path.format(name)


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

    # Manifest of what was fetched for a dataset.
    raw = Places("data/raw/{}")
    # Files downloaded for a dataset, kept until a person removes them; never an output.
    downloads = Places("data/downloads/{}")
    # Shards and tables of a dataset.
    prepared = Places("data/prepared/{}")
    # Weights of one pre-training run.
    pretrained = Places("models/pretrain/{}")
    # Weights of one fine-tuning run; the last one is the model people use.
    finetuned = Places("models/finetune/{}")
    # Learning curve of one training run.
    curve = Places("results/curves/{}.csv")
    # Metrics, predictions and plots of one evaluation task.
    result = Places("results/{}")
    # Metrics of one ablation.
    ablation = Places("results/ablate/{}")
    # Metrics and predictions of one cross-validation.
    cross_validation = Places("results/cross_validation/{}")
    # Hashes of one result's files; the report depends on the folder of them.
    digest = Places("results/digests/{}.json")
    # Resumable state of a stage that is still running; never an output.
    state = Places(".state/{}")

"""`import calm` is enough for transformers' Auto classes, in whatever order, and costs nothing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

RESOLVES = """
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
config = AutoConfig.for_model("calm")
encoder = AutoConfig.for_model("efficientnet_lite")
assert type(config).__module__ == "calm.model.configuration", type(config)
assert MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].__module__ == "calm.model.modeling"
assert MODEL_MAPPING[type(encoder)].__module__ == "calm.model.efficientnet_lite"
assert PROCESSOR_MAPPING[type(config)].__module__ == "calm.model.processing"
assert IMAGE_PROCESSOR_MAPPING[type(config)]["pil"].__module__ == "calm.model.processing"
"""
ORDERS = {
    "calm_first_and_twice": "import calm\nfrom calm import register\nregister()",
    "auto_classes_first": "from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor\n"
    "import calm",
    "tables_used_first": "from transformers import AutoConfig, AutoModel\nAutoConfig.for_model('bert')\n"
    "from transformers.models.auto.modeling_auto import MODEL_MAPPING\nlen(MODEL_MAPPING)\nimport calm",
    "pipeline_first": "from transformers import AutoImageProcessor, pipeline\nimport calm",
}


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_find_calm_in_every_import_order(order: str) -> None:
    run(ORDERS[order] + RESOLVES)


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("calm", {"torch", "transformers", "numpy", "pandas"}),
        ("calm.profiles", {"numpy", "pandas", "scipy"}),
        ("calm.assistant", {"peft", "dvc", "matplotlib", "sklearn"}),
    ],
)
def test_what_takes_seconds_is_imported_where_it_is_needed(module: str, late: set[str]) -> None:
    run(f"import sys, {module}\nearly = {late!r} & set(sys.modules)\nassert not early, early")


def test_other_models_still_resolve() -> None:
    run(
        "import calm\nfrom transformers import AutoConfig, LlamaConfig, LlamaForCausalLM\n"
        "from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING\n"
        "assert MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig] is LlamaForCausalLM\n"
        "assert type(AutoConfig.for_model('llama')) is LlamaConfig"
    )

"""calm for lmms-eval: the model `calm` (an entry point), and tasks for any of its models (`--include_path`)."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest("calm", chat_class_path="calm_lmms_eval.model.CalmModel")

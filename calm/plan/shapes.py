"""The model of a profile, and one training step of each stage, in shapes alone: nothing is downloaded or computed.

The steps follow the objectives of `calm.training` operation by operation; tests run both and compare what they cost.
Code is run on the meta device, where tensors have shapes and no values, so that a model of any size is measured in
seconds on any machine. The same trace counts a real run, which is how the tests hold the two together.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from calm.attributes import LEVELS
from calm.attributes.taxonomy import taxonomy
from calm.model.build import add_lora, calm_config
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.settings import FullTuning, LoRATuning
from calm.params import Params
from calm.training.features import SKIPPED
from calm.training.finetune import head_beside_language, learns
from calm.training.loop.strategies import recompute_activations
from calm.training.pretrain import ALIGNED, state_table

FUSED = "calm_fused"  # in transformers' table of attention functions
META = torch.device("meta")
STAGES = ("attributes", "alignment", "comments", "scores")


class Trace(TorchDispatchMode):
    """Counts what is computed inside its block.

    Memory is counted by storages: those of `known` tensors (weights, gradients that are there already) are not, all
    others from the operation that makes them to the moment when nothing refers to them any more, autograd included.

    Attributes:
        flops: of all operations; a multiplication and an addition are two.
        made: bytes that operations have taken, whether or not they are held any more.
        peak: bytes held at once, at most.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.flops = self.made = self.peak = self._live = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = computed(func, args, kwargs)
        counter = flop_registry.get(func._overloadpacket)
        if counter is not None:
            self.flops += counter(*args, **kwargs, out_val=found)
        for output in tensors((found,)):
            self._hold(output.untyped_storage())
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = None
        size = storage.nbytes()
        self.made += size
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self._live -= size


_GIVEN: dict[Any, tuple[list[tuple[Any, ...]], TreeSpec]] = {}  # shapes of what operations on the meta device gave


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation gives, which on the meta device is computed once for arguments of the same shapes.

    Torch has many of its operations there in Python, where they take thirty times as long as an empty tensor.
    """
    if _aliases(func):
        return func(*args, **kwargs)
    given, form = tree_flatten((args, kwargs))
    known = [value for value in given if isinstance(value, torch.Tensor)]
    if not known or any(value.device != META for value in known):
        return func(*args, **kwargs)
    key = (func, form, *(_shape(one) if isinstance(one, torch.Tensor) else (type(one), one) for one in given))
    if key not in _GIVEN:
        results, form = tree_flatten(found := func(*args, **kwargs))
        if all(isinstance(result, torch.Tensor) for result in results):
            _GIVEN[key] = [_shape(result) for result in results], form
        return found
    shapes, form = _GIVEN[key]
    return tree_unflatten([torch.empty_strided(*shape[:2], dtype=shape[2], device=META) for shape in shapes], form)


def _shape(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


@cache
def _aliases(func: Any) -> bool:
    """Whether an operation gives views of its arguments, or changes them."""
    return any(one.alias_info is not None for one in (*func._schema.arguments, *func._schema.returns))


def fused_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention as kernels of GPUs do it: queries, keys, values and the output are kept, probabilities are not.

    On the meta device torch would run the plain algorithm, whose probabilities take more memory than all else.

    Args:
        query: (B, heads, L, width of a head); key and value with as many heads or a divisor of them.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) if groups > 1 else tensor for tensor in (key, value))
    output = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return output.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(FUSED, fused_attention)


def tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among an operation's arguments or results, lists of them included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


@dataclass(frozen=True)
class Lengths:
    """Tokens of one sample, padding included.

    Attributes:
        prompt: without the visual tokens.
        answer: with the token that ends it.
    """

    prompt: int
    answer: int


def build(params: Params, dtype: torch.dtype, *, fused: bool) -> CalmForConditionalGeneration:
    """The profile's model without values, all frozen.

    Args:
        dtype: of the encoder and the language model; all else is in float32, as when it is trained.
        fused: attention of the language model as on GPUs, else the plain one that calm trains with on processors.
    """
    config = calm_config(params, state_table(taxonomy()))
    config.provenance = {"language": {"name": params.parts.language}}
    with META:
        model = CalmForConditionalGeneration(config)
        model.vision_tower.to(dtype)
        model.language_model.to(dtype)
        model.language_model.set_attn_implementation(FUSED if fused else "eager")
        for part in (model.vision_tower, *(mfam_level.qformer for mfam_level in map(model.mfam.level, LEVELS))):
            part.set_attn_implementation(FUSED)
    return model.eval().requires_grad_(False)


def add_adapters(model: CalmForConditionalGeneration, params: Params) -> None:
    """What fine-tuning puts into the language model before it begins."""
    if isinstance(params.finetune.tuning, LoRATuning):
        with META:
            add_lora(model, params.finetune.tuning, params.seed)


def open_stage(model: CalmForConditionalGeneration, stage: str, params: Params) -> dict[str, nn.Parameter]:
    """Make trainable what a stage trains, and nothing else; returns it by name."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name, stage, params))
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _is_trained(name: str, stage: str, params: Params) -> bool:
    part, _, rest = name.partition(".")
    match stage:
        case "attributes":
            return part == "mfam" and rest.startswith(("levels.", "text_to_contrast.", "temperature"))
        case "alignment":
            return part == "mfam" and rest.startswith(ALIGNED)
        case _:
            if part == "mfam":
                return learns(rest, params.finetune.q_formers)
            if part == "score_head":
                return stage == "scores" and rest.startswith(head_beside_language(params.finetune.scores))
            full = isinstance(params.finetune.tuning, FullTuning)
            return part == "language_model" and (full or "lora_" in name)


@contextmanager
def checkpointing(model: CalmForConditionalGeneration, on: bool) -> Iterator[None]:
    """The language model computes its activations twice instead of keeping them, if `on`."""
    if on:
        recompute_activations(model)
    try:
        yield
    finally:
        model.language_model.activation_checkpointing_disable()
        model.language_model.eval()


def step_costs(
    model: CalmForConditionalGeneration,
    stage: str,
    params: Params,
    samples: int,
    lengths: Lengths,
    questions: int = 0,
    *,
    encode: bool,
    kind: type[Trace] = Trace,
) -> Trace:
    """Cost of the loss of `samples` samples of a stage and of its gradient.

    Args:
        questions: that self-supervision asks the language model about its views.
        encode: photographs pass the encoder in this step; otherwise their features are at hand.
        kind: of the trace; benchmarks have one that keeps every operation.
    """
    trained = open_stage(model, stage, params)
    for parameter in trained.values():
        parameter.grad = torch.empty_like(parameter)
    side = model.config.image_size
    pixels = torch.empty(samples, 3, side, side, device=META)
    features = None if encode else model.encode_images(pixels)
    loss: Callable[[LevelTokens], torch.Tensor]
    if stage == "attributes":
        loss = partial(_attributes, model, params, questions, lengths)
    else:
        loss = partial(_instructions, model, lengths)
    gradients = [parameter.grad for parameter in trained.values() if parameter.grad is not None]
    trace = kind([*model.parameters(), *model.buffers(), *gradients, pixels])
    with trace:
        loss(model.encode_images(pixels) if features is None else features).backward()
    for parameter in trained.values():
        parameter.grad = None
    return trace


@torch.no_grad()
def read_prompts(model: CalmForConditionalGeneration, samples: int, lengths: Lengths) -> Trace:
    """Cost of photographs and prompts up to the first token of the answers, as `score_answer` begins."""
    side = model.config.image_size
    pixels = torch.empty(samples, 3, side, side, device=META)
    trace = Trace([*model.parameters(), *model.buffers(), pixels])
    with trace:
        visual = model.mfam(model.look(pixels))
        embeddings, mask = _embedded(model, visual, lengths.prompt)
        # What the cache holds is counted apart, as it outlives this.
        outputs = model.language_model.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
        states = outputs.last_hidden_state
        model.language_model.lm_head(states[:, -1:])
        model.regress(states[:, -1], visual)
    return trace


def asked(params: Params, views: int) -> float:
    """How many questions the language model is asked about so many views, on average."""
    options = params.pretrain.attributes
    if not options.language.weight:
        return 0.0
    drawn = (1 - SKIPPED) * len(LEVELS) * options.batch_size
    return min(options.language.samples, drawn) * views / options.batch_size


def _instructions(model: CalmForConditionalGeneration, lengths: Lengths, features: LevelTokens) -> torch.Tensor:
    """As `InstructionObjective.losses`, one photograph a sample."""
    visual = model.mfam(features)
    loss, states = _answered(model, visual, lengths)
    score = model.regress(states, visual)
    return loss + score.square().mean() if model.score_head.language.weight.requires_grad else loss


def _attributes(
    model: CalmForConditionalGeneration, params: Params, questions: int, lengths: Lengths, features: LevelTokens
) -> torch.Tensor:
    """As `AttributeObjective.losses`."""
    options, mfam = params.pretrain.attributes, model.mfam
    states = {level: mfam.level(level)(features[level]) for level in LEVELS}
    total = torch.zeros((), device=META)
    if options.contrastive.weight:
        for level, of_level in states.items():
            rows = max(1, round((1 - SKIPPED) * len(of_level)))
            columns = sum(row[0] == level for row in model.config.attribute_states)
            texts = torch.empty(columns * options.contrastive.texts, model.config.text_width, device=META)
            similarity = mfam.similarity(level, of_level[:rows].mean(1), texts)
            total = total - similarity.log_softmax(-1).mean() - similarity.log_softmax(-1).mean()
            if options.contrastive.every:
                every = mfam.similarity(level, of_level.mean(1), texts)
                total = total - every.log_softmax(-1).mean()
    visual = []
    for number in range(questions):
        level = LEVELS[number % len(LEVELS)]
        row = number // len(LEVELS) % len(states[level])
        visual.append(mfam.language_tokens(level, states[level][row : row + 1]))
    return total + _answered(model, torch.cat(visual), lengths)[0] if visual else total


def _answered(
    model: CalmForConditionalGeneration, visual: torch.Tensor, lengths: Lengths
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `CalmForConditionalGeneration.forward`, whose checks of ids need values.

    Returns:
        loss of the answers, states (B, D) that the score is read from.
    """
    language = model.language_model
    embeddings, mask = _embedded(model, visual, lengths.prompt + lengths.answer)
    states = language.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
    logits = language.lm_head(states[:, -lengths.answer :].flatten(0, 1))
    answers = torch.empty(len(logits), dtype=torch.long, device=META)
    return nn.functional.cross_entropy(logits.float(), answers, reduction="none").mean(), states[:, -1]


def _embedded(
    model: CalmForConditionalGeneration, visual: torch.Tensor, words: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Visual tokens (B, N, D) before so many words: embeddings (B, L, D), and the mask that transformers makes."""
    samples, tokens, _ = visual.shape
    length = tokens + words
    ids = torch.empty(samples, length, dtype=torch.long, device=META)
    places = torch.empty(samples, length, dtype=torch.bool, device=META)
    embeddings = model.get_input_embeddings()(ids.masked_fill(places, 0))
    embeddings = embeddings.masked_scatter(places.unsqueeze(-1), visual.to(embeddings.dtype))
    plain = model.language_model.config._attn_implementation == "eager"
    kind = embeddings.dtype if plain else torch.bool
    return embeddings, torch.empty(samples, 1, length, length, dtype=kind, device=META)

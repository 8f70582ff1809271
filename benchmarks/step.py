"""One optimisation step of calm beside the same step written plainly with transformers' own Q-Former and Llama.

    OMP_WAIT_POLICY=passive python -m benchmarks.step [--run comments] [--steps 4] [--threads 2] [--dtype auto]

The plain step is what one would write first: photographs pass the encoder in every step, samples are batched as they
come, the head is asked at every position, attention is transformers' default. Both train the same weights of the
profile in params.yaml, with the photographs and instructions that `dvc repro build_instructions` has made. The losses
of one batch are asserted to be equal before anything is timed; the ratio of medians of one run is the result. The
roofline is the least that the step could take here: each operation at this machine's measured peak or bandwidth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks.machine import Machine, Operations, processor_seconds, use_threads
from calm.attributes import LEVELS
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.layout import Layout
from calm.model.attention import use_plain_attention
from calm.model.build import Assembly, add_lora, assemble, resolve_dtype
from calm.model.mfam import LevelTokens
from calm.model.settings import LoRATuning
from calm.params import Params, load_params
from calm.plan import optimisation
from calm.plan.shapes import Lengths, add_adapters, build, open_stage, step_costs
from calm.training.features import Features
from calm.training.loop.strategies import BETAS
from calm.training.pretrain import AttributeObjective, state_table
from calm.training.settings import FinetuneScores
from calm.training.tuning import InstructionObjective

USES = {"alignment": "generic", "comments": "comments", "scores": "scores"}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of the loss, relative
SEED = 11
Trained = InstructionObjective | AttributeObjective


def objective(run: str, params: Params, layout: Layout) -> InstructionObjective:
    """A stage's objective on fresh weights: their values decide neither the time nor whether two losses agree."""
    rows = tables.instructions(layout, USES[run])
    rows = rows[rows["split"] == "train"]
    assembly = assemble(params, state_table(taxonomy()))
    use_plain_attention(assembly.model)
    if run != "alignment" and isinstance(params.finetune.tuning, LoRATuning):
        add_lora(assembly.model, params.finetune.tuning, params.seed)
    trained = open_stage(assembly.model, run, params)
    features = Features.of(assembly, rows["dataset"], params.runtime, layout)
    options = optimisation(params, run)
    if isinstance(options, FinetuneScores):
        options = options.model_copy(update={"spread": 0.0})  # what the plain loss knows
    return InstructionObjective(assembly, features, rows, trained, options, params.seed, "benchmark")


def plain_loss(of: InstructionObjective, picked: Sequence[int]) -> torch.Tensor:
    """The loss of these rows without anything that calm does for speed."""
    assembly, model = of.assembly, of.assembly.model
    tokenizer, config = assembly.processor.tokenizer, model.config
    chosen = of.rows.iloc[list(picked)]
    images = [of.features.photographs[key] for row in picked for key in of.keys[row]]
    told = [labels for row in picked for labels in of.told[row]]
    pixels = assembly.processor.image_processor(images, return_tensors="pt")["pixel_values"]
    visual = plain_visual_tokens(assembly, pixels, told)

    texts, starts = [], []
    for messages, answer in zip(chosen["messages"], chosen["answer"], strict=True):
        prompt = tokenizer(assembly.processor.prompt([dict(m) for m in messages])).input_ids
        starts.append(len(prompt))
        texts.append([*prompt, *tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id])
    length = max(map(len, texts))
    ids = torch.tensor([text + [tokenizer.pad_token_id] * (length - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts])
    embeddings = model.get_input_embeddings()(ids.where(ids < config.text_config.vocab_size, 0))
    rows = []
    for row, tokens in enumerate(visual):
        places = [place for place, token in enumerate(texts[row]) if token in config.placeholder_token_ids]
        first, last = places[0], places[-1] + 1
        rows.append(torch.cat([embeddings[row, :first], tokens.to(embeddings.dtype), embeddings[row, last:]]))
    output = model.language_model(
        inputs_embeds=torch.stack(rows), attention_mask=mask, output_hidden_states=True, use_cache=False
    )
    losses = []
    for row, text in enumerate(texts):
        logits = output.logits[row, starts[row] - 1 : len(text) - 1].float()
        losses.append(nn.functional.cross_entropy(logits, ids[row, starts[row] : len(text)]))
    loss = torch.stack(losses).mean()
    if of.regression_weight:
        states = torch.stack([output.hidden_states[-1][row, start - 1] for row, start in enumerate(starts)])
        score = model.regress(states, visual)
        target = torch.tensor(chosen["score"].to_numpy(dtype="float32"))
        error = ((score - target) / ((config.score_max - config.score_min) / 2))[~target.isnan()]
        loss = loss + of.regression_weight * error.square().mean()
    return loss


def plain_visual_tokens(assembly: Assembly, pixels: torch.Tensor, told: Sequence[Sequence[int] | None]) -> torch.Tensor:
    """Encoder, three of transformers' `Blip2QFormerModel`, one linear layer each, and the fully connected layer."""
    model, config = assembly.model, assembly.model.config
    with torch.no_grad():
        seen = model.vision_tower(pixels.to(model.vision_tower.dtype), output_hidden_states=True)
    tokens = {}
    for level in LEVELS:
        cells = []
        for index in config.levels[level]:
            state = seen.hidden_states[index].float()
            mean = nn.functional.adaptive_avg_pool2d(state, config.grid)
            square = nn.functional.adaptive_avg_pool2d(state * state, config.grid)
            spread = [(square - mean * mean).clamp_min(1e-6).sqrt()] if state.shape[-1] > config.grid else []
            cells.append(torch.cat([mean, *spread], dim=1).flatten(2).transpose(1, 2))
        tokens[level] = torch.cat(cells, dim=-1)
    parts = []
    for level in LEVELS:
        part = model.mfam.level(level)
        assert part.positions is not None
        placed = nn.functional.layer_norm(tokens[level], tokens[level].shape[-1:]) + part.positions
        queries = part.queries.expand(len(pixels), -1, -1)
        states_of = part.qformer(query_embeds=queries, encoder_hidden_states=placed).last_hidden_state
        parts.append(part.to_language(states_of))
    content = model.mfam.whole(seen.pooler_output, seen.hidden_states[-1], seen.logits)
    whole = LevelTokens(tokens["low"], tokens["middle"], tokens["high"], content)
    parts.append(model.mfam.thematic_tokens(whole))
    if config.told_tokens:
        parts.append(model.mfam.worded(whole, told))
    return torch.cat(parts, dim=1)


def timed(loss: Callable[[int], torch.Tensor], steps: int, of: Trained) -> list[float]:
    """Seconds (`processor_seconds`) of each step but the first: loss, gradient, clipping, Adam."""
    optimizer = torch.optim.AdamW(of.parameters.values(), lr=1e-6, betas=BETAS)
    seconds = []
    for step in range(steps + 1):
        started = processor_seconds()
        loss(step).backward()
        nn.utils.clip_grad_norm_(of.parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(processor_seconds() - started)
    return seconds[1:]


def lengths(of: Trained, step: int) -> Lengths:
    """Of the conversations of one of calm's steps, as padded."""
    seen: list[dict[str, torch.Tensor]] = []
    hook = of.model.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs), with_kwargs=True)
    with torch.no_grad():
        of.losses(step)
    hook.remove()
    rows, length = seen[0]["input_ids"].shape
    answer = round((seen[0]["labels"] != -100).sum().item() / rows)
    return Lengths(length - seen[0]["visual_tokens"].shape[1] - answer, answer)


def feed_forward(of: Trained, batch: int, words: Lengths) -> tuple[int, int, int]:
    """Shape of the language model's largest repeated product."""
    config = of.assembly.model.config
    rows = batch * (config.vision_tokens + words.prompt + words.answer)
    return rows, config.text_config.hidden_size, config.text_config.intermediate_size


def in_shapes(run: str, params: Params, batch: int, of: Lengths) -> Operations:
    """What the plan says that a step costs here."""
    questions = params.pretrain.attributes.language.samples if run == "attributes" else 0
    model = build(params, resolve_dtype(params.runtime), fused=False)
    if run in USES and run != "alignment":
        add_adapters(model, params)
    encode = run in USES and not params.runtime.keep_features  # edited views are kept as features in any case
    trace = step_costs(model, run, params, batch, of, questions, encode=encode, kind=Operations)
    assert isinstance(trace, Operations)
    return trace


def main() -> None:
    """Print equality, seconds, their ratio and the roofline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="comments", choices=tuple(USES))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    chosen = parser.parse_args()
    use_threads(chosen.threads)
    params = load_params()
    runtime = params.runtime.model_copy(update={"dtype": chosen.dtype, "device": "cpu"})
    params = params.model_copy(update={"runtime": runtime})
    if not params.mfam.grid:
        raise SystemExit("the plain step is written for feature maps in cells: mfam.grid must not be 0")
    of = objective(chosen.run, params, Layout())
    batch, dtype = of.order.batch_size, resolve_dtype(runtime)

    ours, plain = of.losses(0)["loss"].item(), plain_loss(of, of.order(0)).item()
    assert abs(ours - plain) <= TOLERANCE[dtype] * abs(plain), (ours, plain)
    print(
        f"{chosen.run}, batch {batch}, {dtype}, {chosen.threads} threads: loss {ours:.6f}, written plainly {plain:.6f}"
    )

    calm = timed(lambda step: of.losses(step)["loss"], chosen.steps, of)
    as_they_come = np.random.default_rng(SEED).permutation(len(of.rows))
    of.assembly.model.language_model.set_attn_implementation("sdpa")
    slow = timed(
        lambda step: plain_loss(of, as_they_come.take(range(step * batch, (step + 1) * batch), mode="wrap").tolist()),
        chosen.steps,
        of,
    )
    words = lengths(of, 1)
    machine = Machine.measured(dtype, feed_forward(of, batch, words))
    least = machine.roofline(in_shapes(chosen.run, params, batch, words))
    print(f"plain {median(slow):.3f} s, calm {median(calm):.3f} s, ratio {median(slow) / median(calm):.2f}")
    print(f"roofline of calm's step {least:.3f} s: {least / median(calm):.0%} of its time ({machine})")


if __name__ == "__main__":
    main()

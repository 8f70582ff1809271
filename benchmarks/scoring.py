"""How much faster `Calm.score` is than a loop of `generate` over the same photographs, with equal answers.

    python benchmarks/scoring.py [--photographs 32] [--batch-size 16] [--model models/finetune/scores]

Both read the same model, in the same number format and by the same threads, of photographs that are decoded already.
The loop is what one would write first: a photograph at a time through the processor, `model.generate`, the number in
the answer. `Calm.score` gives the same answer, and the expectation and regression readouts besides. The answers are
compared before any time is printed; the ratio of one run is the result, for absolute times depend on who else computes.
Float32 by default: in bfloat16 a batch sums in another order than a single row, and where two digits are all but
equally likely the other one may win (6 of 32 photographs).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from calm.assistant import Calm
from calm.data.store.shards import ImageStore
from calm.data.store.tables import role_list
from calm.instructions import SCORE_PROMPT, messages
from calm.layout import Layout

MAX_NEW_TOKENS = 5  # as in calm.model.readouts.score_answer


@torch.inference_mode()
def generate_loop(calm: Calm, images: Sequence[Image]) -> list[str]:
    """One `generate` a photograph, by the public parts of the processor and the model."""
    assert calm._processor is not None
    processor, answers = calm._processor, []
    for image in images:
        text = processor.prompt(messages(SCORE_PROMPT), score=True)
        inputs = processor.tokenizer(text, return_tensors="pt").to(calm.model.device)
        pixels = processor.image_processor([image], return_tensors="pt")["pixel_values"].to(calm.model.device)
        tokens = calm.model.mfam(calm.model.encode_images(pixels))
        embeddings = calm.model.embed_prompt(inputs.input_ids, tokens)
        ids = calm.model.generate(
            inputs_embeds=embeddings,
            attention_mask=inputs.attention_mask,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        answers.append(processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    return answers


def photographs(layout: Layout, count: int) -> list[Image]:
    """The first so many held-out photographs of role `scores`, RGB."""
    rows = role_list(layout, "scores").query("split == 'test'").sort_values(["dataset", "item_id"]).head(count)
    stores = {name: ImageStore(layout.prepared(name)) for name in rows["dataset"].unique()}
    return [stores[d][i].convert("RGB") for d, i in zip(rows["dataset"], rows["item_id"], strict=True)]


def main() -> None:
    """Print equality, seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--model", type=Path, default=Path("models/finetune/scores"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    calm = Calm.from_pretrained(chosen.model, dtype=chosen.dtype)
    images = photographs(Layout(), chosen.photographs)
    calm.score(images[:2])
    generate_loop(calm, images[:1])  # both warm

    start = time.perf_counter()
    answers = generate_loop(calm, images)
    loop = time.perf_counter() - start
    start = time.perf_counter()
    scores = calm.score(images, batch_size=chosen.batch_size)
    batched = time.perf_counter() - start

    different = [(a, s.raw) for a, s in zip(answers, scores, strict=True) if a != s.raw]
    assert not different, f"{len(different)} of {len(images)} answers differ: {different[:3]}"
    print(f"{len(images)} photographs, {len(set(answers))} different answers, all equal; {calm.model.dtype}")
    print(f"generate loop  {loop:7.2f} s  {len(images) / loop:6.2f} photographs/s")
    print(f"Calm.score     {batched:7.2f} s  {len(images) / batched:6.2f} photographs/s")
    print(f"ratio {loop / batched:.2f}")


if __name__ == "__main__":
    main()

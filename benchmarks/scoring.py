"""How much faster `Calm.score` is than a loop of `generate` over the same photographs, with equal answers.

    python -m benchmarks.scoring [--photographs 32] [--batch-size 16] [--model models/finetune/scores]
    python -m benchmarks.scoring --folder FOLDER --photographs 500 [--write]

Both read the same model, in the same number format and by the same threads, of photographs that are decoded already.
The loop is what one would write first: a photograph at a time through the processor, `model.generate`, the number in
the answer. `Calm.score` gives the same answer, and the expectation and regression readouts besides. The answers are
compared before any time is printed; the ratio of one run is the result, for absolute times depend on who else computes.
Float32 by default: in bfloat16 a batch sums in another order than a single row, and where two digits are all but
equally likely the other one may win (6 of 32 photographs).

With a folder of large photographs (made as in benchmarks.folder where it is not there): what `calm score` does,
with the model that comes with calm, beside decoding at full size, one photograph after the other; that the scores
differ by no more than those of twins may is checked first. The roofline: decoding and the frozen encoder alone,
by the same threads. --write puts the table into docs/benchmarks/large.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from benchmarks import folder
from calm.assistant import Calm
from calm.assistant.inputs import MAX_PIXELS, opened
from calm.assistant.personal import encoded
from calm.cli.photographs import THREADS, read_photographs
from calm.data.store.images import read_image
from calm.data.store.pixels import fit
from calm.data.store.shards import ImageStore
from calm.data.store.tables import role_list
from calm.instructions import SCORE_PROMPT, messages
from calm.layout import Layout
from calm.model.readouts import ANSWER_TOKENS

PAGE = Path("docs/benchmarks/large.md")
WANTED = 2.5  # times as many photographs a second as when they were decoded at full size
GAP = 0.05  # points that a smaller scale of decoding may change a score by, as any twin of a photograph may
ABOUT = """\
# Scoring large photographs

Made by `python -m benchmarks.scoring --folder FOLDER --photographs {photographs} --write`: photographs of 12
megapixels, the model that comes with calm, {threads} threads, batches of {batch_size}. Scores of the first two ways
differ by {mean:.3f} points on average, {most:.3f} at most; those in bfloat16 from those in float32 by
{rounded_mean:.3f} on average, {rounded_most:.3f} at most.

"""
READING = """
**{ratio:.2f}** times as many photographs a second (wanted: {wanted}), **{unwritten:.2f}** without the text;
**{share:.0%}** of the roofline.

How to read it: "at full size" is what the command did at first: decode a photograph whole, scale it, then the next
one, and score a batch when it is full. Now a JPEG's decoder scales down itself, and threads decode ahead of the
model. The roofline takes the time of both of its parts, for each of them has all cores to itself. With
`--readout regression` no score is read from words. bfloat16 is what `--dtype bfloat16` asks for: there a score hangs a
little on what else is in the batch, so float32 is the default. Seconds are the wall clock's; processor seconds, of all
threads, hang less on what else the machine does.
"""


@torch.inference_mode()
def generate_loop(calm: Calm, images: Sequence[Image]) -> list[str]:
    """One `generate` a photograph, by the public parts of the processor and the model."""
    assert calm._processor is not None
    processor, answers = calm._processor, []
    for image in images:
        text = processor.prompt(messages(SCORE_PROMPT), score=True)
        inputs = processor.tokenizer(text, return_tensors="pt").to(calm.model.device)
        pixels = processor.image_processor([image], return_tensors="pt")["pixel_values"].to(calm.model.device)
        tokens = calm.model.mfam(calm.model.look(pixels))
        embeddings = calm.model.embed_prompt(inputs.input_ids, tokens)
        ids = calm.model.generate(
            inputs_embeds=embeddings,
            attention_mask=inputs.attention_mask,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
        )
        answers.append(processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    return answers


def photographs(layout: Layout, count: int) -> list[Image]:
    """The first so many held-out photographs of role `scores`, RGB."""
    rows = role_list(layout, "scores").query("split == 'test'").sort_values(["dataset", "item_id"]).head(count)
    stores = {name: ImageStore(layout.prepared(name)) for name in rows["dataset"].unique()}
    return [stores[d][i].convert("RGB") for d, i in zip(rows["dataset"], rows["item_id"], strict=True)]


def whole(path: str, max_side: int) -> Image:
    """As `opened`, decoded at full size."""
    return fit(read_image(Path(path), max_pixels=MAX_PIXELS), max_side)


def large(
    calm: Calm, rounded: Calm, paths: Sequence[str], batch_size: int
) -> tuple[dict[str, tuple[float, float]], np.ndarray]:
    """(seconds, processor seconds) of each way and of the roofline's parts.

    And how far each score is from that of a whole photograph, and in bfloat16 from that in float32: (2, N).
    """
    chunks = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    read = [[opened(path, calm.max_side) for path in chunk] for chunk in chunks]

    def at_full_size() -> list[float]:
        images = ([whole(path, calm.max_side) for path in chunk] for chunk in chunks)
        return [score.regression for batch in images for score in calm.score(batch, batch_size)]

    def ahead(model: Calm, written: bool = True) -> list[float]:
        batches = read_photographs(paths, batch_size, calm.max_side)
        judged = (model.score([*batch.values()], batch_size, written=written) for _, batch in batches)
        return [score.regression for scores in judged for score in scores]

    def decoding() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda path: opened(path, calm.max_side), paths))

    @torch.inference_mode()
    def encoder() -> None:
        for batch in read:
            for pixels, _ in calm._pixels(batch, batch_size):
                encoded(calm.model, pixels)

    times, before = timed(at_full_size)
    found = {"decoded at full size, one after the other": times}
    found["as `calm score` does it"], after = timed(lambda: ahead(calm))
    found["as `calm score --readout regression` does it"], unwritten = timed(lambda: ahead(calm, written=False))
    assert unwritten == after
    found["roofline: decoding alone"], _ = timed(decoding)
    found["roofline: the frozen encoder alone"], _ = timed(encoder)
    found["scoring without decoding"], _ = timed(lambda: [calm.score(batch, batch_size) for batch in read])
    found["as `calm score --dtype bfloat16` does it"], told = timed(lambda: ahead(rounded))
    return found, np.abs([np.subtract(before, after), np.subtract(after, told)])


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Seconds and processor seconds, and what came out."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - wall, time.process_time() - processor), result


def large_page(calm: Calm, chosen: argparse.Namespace) -> tuple[str, float]:
    """The page, and how many times as fast as at full size."""
    if not chosen.folder.exists():
        folder.make(chosen.folder, chosen.photographs, 0)
    paths = sorted(map(str, chosen.folder.iterdir()))[: chosen.photographs]
    rounded = Calm.from_pretrained(dtype="bfloat16")
    for model in (calm, rounded):
        model.score([opened(paths[0], calm.max_side)])  # warm
    found, (gaps, other) = large(calm, rounded, paths, chosen.batch_size)
    assert gaps.max() <= GAP, f"{paths[int(gaps.argmax())]}: its scores are {gaps.max():.3f} apart"
    (before, _), (now, _), (unwritten, _), (decode, _), (encode, _), *_ = found.values()
    rows = [f"| {way} | {s:.1f} | {p:.1f} | {len(paths) / s:.1f} |" for way, (s, p) in found.items()]
    table = "\n".join(["| | s | processor s | photographs/s |", "| --- | --: | --: | --: |", *rows])
    facts = vars(chosen) | {"photographs": len(paths), "mean": gaps.mean(), "most": gaps.max(), "wanted": WANTED}
    facts |= {"rounded_mean": other.mean(), "rounded_most": other.max()}
    facts |= {"ratio": before / now, "unwritten": before / unwritten, "share": (decode + encode) / now}
    page = f"{ABOUT}{table}\n{READING}".format(**facts)
    return page, before / now


def main() -> None:
    """Print equality, seconds and their ratio; of large photographs the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--model", type=Path, default=Path("models/finetune/scores"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.folder is not None:
        page, ratio = large_page(Calm.from_pretrained(), chosen)
        print(page)
        if chosen.write:
            PAGE.write_text(page, encoding="utf-8")
        if ratio < WANTED:
            raise SystemExit(f"missed: {ratio:.2f} times as fast as at full size, {WANTED} are wanted")
        return
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

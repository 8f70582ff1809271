"""How long one GPU takes to judge a test set: prompts are read at an MFU, answers written at a bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.plan.shapes import META, Lengths, read_prompts
from calm.training.loop.machines import GIB, Machines


@dataclass(frozen=True)
class Judged:
    """One task on one GPU.

    Attributes:
        flops: of reading one prompt with its photograph.
        read_hours: encoder, MFAM and prompts.
        write_hours: answers, token by token: every step reads the weights and the cache once.
        memory_gib: weights, the cache of one batch, activations.
    """

    task: str
    of: str
    items: int
    batch: int
    flops: int
    read_hours: float
    write_hours: float
    price: float
    memory_gib: float

    @property
    def hours(self) -> float:
        """Both together."""
        return self.read_hours + self.write_hours


def judge(
    model: CalmForConditionalGeneration,
    task: str,
    params: Params,
    table: Machines,
    *,
    rate: float,
    bandwidth: float,
    price: float,
) -> Judged:
    """Plan a task of `table.evaluation` with the batch size of params.

    Args:
        rate: FLOPs a second that prompts are read with.
        bandwidth: of the memory, bytes a second.
        price: of an hour.
    """
    test, batch = table.evaluation[task], params.evaluation.batch_size
    lengths = Lengths(test.prompt, test.answer)
    one, two = (read_prompts(model, samples, lengths) for samples in (1, 2))
    flops = two.flops - one.flops
    seconds_reading = test.items * flops / rate
    # The first token of an answer comes with the prompt.
    steps = -(-test.items // batch) * (test.answer - 1)
    language = sum(p.nbytes for p in model.language_model.parameters())
    cache = batch * _cache_bytes(model, model.config.vision_tokens + test.prompt + test.answer)
    seconds_writing = steps * (language + cache) / (bandwidth * table.bandwidth_share)
    weights = sum(p.nbytes for p in model.parameters())
    peak = one.peak + (batch - 1) * (two.peak - one.peak)
    hours = (seconds_reading + seconds_writing) / 3600
    return Judged(
        task=task,
        of=test.of,
        items=test.items,
        batch=batch,
        flops=flops,
        read_hours=seconds_reading / 3600,
        write_hours=seconds_writing / 3600,
        price=hours * price,
        memory_gib=(weights + cache + peak) / GIB,
    )


def _cache_bytes(model: CalmForConditionalGeneration, length: int) -> int:
    """Keys and values of one sample."""
    config = model.config.text_config
    width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    element = torch.empty((), dtype=model.language_model.dtype, device=META).element_size()
    layers: int = config.num_hidden_layers
    return 2 * layers * length * width * element

"""Who holds the weights, gradients and optimiser state: one process, or many by DDP, FSDP2 or DeepSpeed's ZeRO.

A step's samples are cut into equal parts, one for each process and round of accumulation. An objective gives a part's
contribution to the losses of the whole step, so contributions and their gradients sum to what one process would have
got. Libraries average gradients over processes; contributions are scaled up before, to undo that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from calm.training.loop.checkpoints import WEIGHT, Saved
from calm.training.loop.order import Part
from calm.training.loop.processes import Processes, TrainingError
from calm.training.settings import Optimisation, Strategy

BETAS = (0.9, 0.999)  # Adam (paper); betas as in LLaVA-1.5's recipe
MOMENTS = ("exp_avg", "exp_avg_sq")
COUNT = "step"  # of Adam's updates
DEEPSPEED = Path("workflow/deepspeed")

Losses = dict[str, torch.Tensor]


class Objective(Protocol):
    """What a stage teaches: which parameters, and the losses of each step."""

    @property
    def model(self) -> nn.Module:
        """What is computed with; strategies other than `single` share it out."""
        ...

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What is trained, by its name in the model."""
        ...

    def read(self, step: int, part: Part) -> Any:
        """What `losses` needs of photographs; made without the model, so that other processes can make it ahead."""
        ...

    def losses(self, step: int, part: Part, read: Any) -> Losses:
        """What a part contributes to the scalars of a step; "loss" is the one that is minimised.

        Contributions of all parts sum to the losses of the whole step. Every part calls the same modules in the same
        order, whatever was drawn for it: processes that share weights out wait for one another in each.
        """
        ...


class Learner(nn.Module):
    """An objective as a module, for libraries that wrap a forward pass."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self._losses = objective.losses

    def forward(self, step: int, part: Part, read: Any) -> Losses:
        """Losses of a part."""
        return self._losses(step, part, read)


class Trainer:
    """One process that holds everything.

    Attributes:
        rounds: of accumulation, in each step.
        parts: of each step, that this process computes one after the other.
    """

    def __init__(self, objective: Objective, options: Optimisation, strategy: Strategy, processes: Processes) -> None:
        self.objective, self.options, self.strategy, self.processes = objective, options, strategy, processes
        self.rounds = accumulation(options.batch_size, strategy)
        total = self.rounds * processes.world
        self.parts = [Part(number, total) for number in range(processes.rank, total, processes.world)]
        self.parameters = self._wrap()
        self.optimizer = self._optimizer()

    def learn(self, step: int, part: Part, read: Any, *, last: bool) -> Losses:
        """Add a part's gradients; `last` of this step's rounds is when processes exchange them."""
        losses = self.objective.losses(step, part, read)
        losses["loss"].backward()
        return losses

    def update(self, rate: float) -> float:
        """Move the weights by the gradients of all parts; returns their norm before clipping."""
        norm = float(whole(nn.utils.clip_grad_norm_(self.parameters.values(), self.options.max_grad_norm)))
        self._set_rate(rate)
        if math.isfinite(norm):  # else the caller stops: no such number may reach the weights
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights and Adam's state, whole, as kind/name; the same on every process, which all have to ask."""
        for name, parameter in self.parameters.items():
            yield f"{WEIGHT}/{name}", whole(parameter)
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                yield f"{kind}/{name}", whole(value)

    def restore(self, saved: Saved) -> None:
        """Take Adam's state from a checkpoint. The weights were loaded before they were shared out."""
        moments = {kind: saved.tensors(kind) for kind in (COUNT, *MOMENTS)}
        for name, parameter in self.parameters.items():
            if name in moments[COUNT]:  # a weight that never had a gradient has no state
                state = {kind: like(moments[kind][name], parameter) for kind in MOMENTS}
                self.optimizer.state[parameter] = {COUNT: moments[COUNT][name], **state}

    def _wrap(self) -> dict[str, nn.Parameter]:
        return dict(self.objective.parameters)

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.AdamW(
            self.parameters.values(), lr=options.learning_rate, betas=BETAS, weight_decay=options.weight_decay
        )

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class DataParallel(Trainer):
    """Everything on each process, gradients averaged (torch's DistributedDataParallel)."""

    def _wrap(self) -> dict[str, nn.Parameter]:
        # A step may leave weights out on every process (a level that was not drawn): they then have no gradient, as in
        # one process, and Adam passes them by.
        self.wrapped = nn.parallel.DistributedDataParallel(
            Learner(self.objective), forward_sync_buffers=False, find_unused_parameters=True
        )
        return super()._wrap()

    def learn(self, step: int, part: Part, read: Any, *, last: bool) -> Losses:
        with nullcontext() if last else self.wrapped.no_sync():
            losses: Losses = self.wrapped(step, part, read)
            (losses["loss"] * self.processes.world).backward()
        return losses


class Sharded(Trainer):
    """Weights, gradients and optimiser state shared out, fetched layer by layer (torch's fully_shard, FSDP2)."""

    def _wrap(self) -> dict[str, nn.Parameter]:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.wrapped = Learner(self.objective)
        places = {id(p): (m, name) for m in self.wrapped.modules() for name, p in m.named_parameters(recurse=False)}
        held = {name: places[id(parameter)] for name, parameter in self.objective.parameters.items()}
        device = next(self.wrapped.parameters()).device.type
        mesh = init_device_mesh(device, (self.processes.world,))
        for layer in self._layers():
            fully_shard(layer, mesh=mesh)
        fully_shard(self.wrapped, mesh=mesh)
        # The parameters were replaced by shares of them.
        return {name: getattr(module, attribute) for name, (module, attribute) in held.items()}

    def _layers(self) -> Iterator[nn.Module]:
        """Transformer layers, as transformers names them for this purpose."""
        modules = list(self.wrapped.modules())
        names = {name for module in modules for name in getattr(module, "_no_split_modules", None) or ()}
        yield from (module for module in reversed(modules) if type(module).__name__ in names)  # inner ones first

    def learn(self, step: int, part: Part, read: Any, *, last: bool) -> Losses:
        losses: Losses = self.wrapped(step, part, read)
        (losses["loss"] * self.processes.world).backward()
        return losses


class Zero(Trainer):
    """Gradients and optimiser state shared out (stage 2), weights too (stage 3), by DeepSpeed."""

    def _optimizer(self) -> torch.optim.Optimizer:
        base = super()._optimizer()
        self.engine = start_deepspeed(Learner(self.objective), base, self._config())
        self.zero: Any = self.engine.optimizer
        return base

    def _config(self) -> dict[str, Any]:
        path = DEEPSPEED / f"zero{self.strategy.zero}.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path}: {error}") from error
        stage = config.get("zero_optimization", {}).get("stage")
        if stage != self.strategy.zero:
            raise TrainingError(f"{path}: zero_optimization.stage is {stage}, strategy.zero is {self.strategy.zero}")
        own = {
            "train_micro_batch_size_per_gpu": self.options.batch_size // (self.rounds * self.processes.world),
            "gradient_accumulation_steps": self.rounds,
            "gradient_clipping": self.options.max_grad_norm,
        }
        if taken := own.keys() & config.keys():
            raise TrainingError(f"{path}: {', '.join(sorted(taken))}: params.yaml decides this")
        return config | own

    def learn(self, step: int, part: Part, read: Any, *, last: bool) -> Losses:
        losses: Losses = self.engine(step, part, read)
        self.engine.backward(losses["loss"] * part.of)  # divided by rounds and by processes there
        if not last:
            self.engine.step()  # only counts
        return losses

    def update(self, rate: float) -> float:
        self._set_rate(rate)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        count = next(iter(self.optimizer.state.values()))[COUNT]
        for name, parameter in self.parameters.items():
            yield f"{WEIGHT}/{name}", safe_get_full_fp32_param(parameter).view(shape(parameter))
            yield f"{COUNT}/{name}", count.clone()
            for kind in MOMENTS:
                yield f"{kind}/{name}", safe_get_full_optimizer_state(parameter, kind).view(shape(parameter))

    def restore(self, saved: Saved) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        moments = {kind: saved.tensors(kind) for kind in (COUNT, *MOMENTS)}
        count = max(float(value) for value in moments[COUNT].values())
        third = self.strategy.zero == 3
        for flat in self.zero.fp32_partitioned_groups_flat if third else self.zero.single_partition_of_fp32_groups:
            empty = {kind: torch.zeros_like(flat) for kind in MOMENTS}
            self.optimizer.state[flat] = {COUNT: torch.tensor(count), **empty}
        if not third:
            self.zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.parameters.items():
            for kind in MOMENTS:
                if name not in moments[kind]:
                    continue
                value = moments[kind][name].to(parameter.device)
                if third:
                    safe_set_local_optimizer_state(parameter, self._share(value, parameter), kind)
                else:
                    safe_set_full_optimizer_state(parameter, value, kind)

    def _share(self, value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        """This process's share of a tensor, as stage 3 shares it out: equal shares of the padded whole."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = nn.functional.pad(value.flatten(), (0, size * self.processes.world - value.numel()))
        return padded[size * self.processes.rank : size * (self.processes.rank + 1)]


KINDS: dict[str, type[Trainer]] = {"single": Trainer, "ddp": DataParallel, "fsdp2": Sharded, "deepspeed": Zero}


def open_trainer(
    objective: Objective, options: Optimisation, strategy: Strategy, processes: Processes, saved: Saved | None
) -> Trainer:
    """Share the objective's model out as `strategy` says, from a checkpoint or the start.

    Raises:
        TrainingError: the trained weights are in a format that cannot be updated in small steps.
    """
    rounded = [name for name, parameter in objective.parameters.items() if parameter.dtype != torch.float32]
    if rounded and strategy.kind != "single":
        raise TrainingError(
            f"{rounded[0]} and {len(rounded) - 1} more are trained in {objective.parameters[rounded[0]].dtype}, too "
            "coarse for small steps: set runtime.dtype to float32, or tune by LoRA"
        )
    if saved is not None:
        take_weights(objective, saved)
    if strategy.gradient_checkpointing:
        recompute_activations(objective.model)
    trainer = KINDS[strategy.kind](objective, options, strategy, processes)
    if saved is not None:
        trainer.restore(saved)
    return trainer


@torch.no_grad()
def take_weights(objective: Objective, saved: Saved) -> None:
    """Copy a checkpoint's weights into the objective's own."""
    weights = saved.tensors(WEIGHT)
    for name, parameter in objective.parameters.items():
        parameter.copy_(weights[name])


def accumulation(batch_size: int, strategy: Strategy) -> int:
    """Rounds in which a process computes its share of a batch: the fewest equal ones of at most `micro_batch`."""
    share = batch_size // strategy.world
    most = strategy.micro_batch or share
    return next(rounds for rounds in range(1, share + 1) if share % rounds == 0 and share // rounds <= most)


def recompute_activations(model: nn.Module) -> None:
    """Keep only the inputs of the language model's layers, and compute the rest again for the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    language_model: Any = model.language_model
    language_model.activation_checkpointing_enable({"use_reentrant": False})
    for module in language_model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # it alone, as its condition: dropout inside stays as it is


def start_deepspeed(learner: Learner, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine around a learner.

    Raises:
        TrainingError: DeepSpeed is not installed.
    """
    try:
        import deepspeed
        from deepspeed.utils import logger
    except ImportError as error:
        raise TrainingError(f"strategy.kind deepspeed: {error}; install calm[cluster]") from error
    logger.setLevel("WARNING")
    if next(learner.parameters()).device.type == "cpu":
        # Its own exchange by shared memory wants a compiler; gloo, which it has beside, needs none.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(model=learner, optimizer=optimizer, config=config)
    return engine


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be shared out as a whole one; all processes have to ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """`value`, whole, on the device of a parameter and shared out as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        placed = value.to(parameter.device)
        return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.to(parameter.device)


def shape(parameter: nn.Parameter) -> torch.Size:
    """Shape of a parameter that stage 3 may have emptied."""
    found: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return found

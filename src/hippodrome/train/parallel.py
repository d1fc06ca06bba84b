"""One device or many: the engine (Lightning Fabric), imported on need; whole states out of sharded ones."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hippodrome.train.batches import Share
from hippodrome.train.settings import TrainSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def engine(settings: TrainSettings) -> "Fabric":
    """The engine for these settings: device, precision, and how several processes work together.

    Raises ValueError where the device or the strategy is not to be had on this machine.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy

    # Its importing sets the level; what it says of processes and devices is not for the user of a verb.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)

    kind, _, index = settings.device.partition(":")
    devices: Any = [int(index)] if index.isdigit() else settings.devices
    world = settings.devices * settings.nodes
    strategy: Any = settings.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)
    elif strategy == "auto" and world > 1:
        strategy = "ddp"
    try:
        return Fabric(
            accelerator="cuda" if kind == "gpu" else kind,
            devices=devices,
            num_nodes=settings.nodes,
            strategy=strategy,
            precision=settings.precision,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {settings.device!r} x {settings.devices} with strategy {settings.strategy!r} is not to "
            f"be had here: {reason}"
        ) from error


def is_main(settings: TrainSettings) -> bool:
    """Whether this process is the one that writes files, of all that run the same program."""
    if settings.devices * settings.nodes == 1:
        return True
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def share(fabric: "Fabric") -> Share:
    """This process's place among those that train."""
    return Share(fabric.global_rank, fabric.world_size)


def agree(fabric: "Fabric", *numbers: float | int) -> list[float]:
    """The sums of these numbers over all processes."""
    if fabric.world_size == 1:
        return [float(number) for number in numbers]
    total = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    torch.distributed.all_reduce(total)
    return total.tolist()


def gather(fabric: "Fabric", value: Any) -> list[Any]:
    """The value of every process, in their order."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def whole_weights(fabric: "Fabric", model: nn.Module) -> dict[str, Any]:
    """The model's weights, unsharded, as copies on the CPU; empty on all processes but the first."""
    if not _sharded(fabric):
        state: dict[str, Any] = model.state_dict() if fabric.global_rank == 0 else {}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def whole_optimizer(fabric: "Fabric", model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, unsharded; empty on all processes but the first."""
    if not _sharded(fabric):
        return optimizer.state_dict() if fabric.global_rank == 0 else {}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_optimizer_state_dict(model, optimizer, options=options)


def load_weights(fabric: "Fabric", model: nn.Module, weights: dict[str, Any]) -> None:
    """Puts whole weights into a model, sharded or not; every process hands in the same."""
    if not _sharded(fabric):
        model.load_state_dict(weights)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    # A copy of the dict, because this puts shards in the place of what it is given.
    set_model_state_dict(model, dict(weights), options=StateDictOptions(full_state_dict=True))


def load_optimizer(
    fabric: "Fabric", model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Puts a whole state into an optimizer, sharded or not; every process hands in the same."""
    if not _sharded(fabric):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def _sharded(fabric: "Fabric") -> bool:
    from lightning.fabric.strategies import ModelParallelStrategy

    return isinstance(fabric.strategy, ModelParallelStrategy)


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Fully sharded data parallelism, second form: each layer of a list on its own, then what is left."""
    from torch.distributed.fsdp import fully_shard

    for part in reversed(list(module.modules())):
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    return module

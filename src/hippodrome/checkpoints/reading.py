"""A checkpoint folder of another program as a model of ours: recognised, renamed, and checked by name."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from hippodrome import config as configuration
from hippodrome.checkpoints import files, renaming
from hippodrome.checkpoints.families import families
from hippodrome.config.unfilled import Unfilled
from hippodrome.layers.moe import MoE
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.base import Model
from hippodrome.train.weights import cast_unsaved

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class Loaded(NamedTuple):
    """A model out of a checkpoint: in evaluation mode, with where it came from for the way back."""

    model: Model
    spec: dict[str, Any]
    origin: dict[str, Any]
    """The layout's name, the configuration as it was, and the dtype of each tensor of theirs."""


def layout_of(config: Mapping[str, Any]) -> tuple[ModuleType, str] | None:
    """The family and the name of the layout that a configuration is of; None for one that is not known."""
    for family in families().values():
        name = family.layout(config)
        if name is not None:
            return family, name
    return None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has a ``config.json`` of another program (ours names a format version)."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        found = files.read_json(path)
    except ValueError:
        return False
    return not isinstance(found.get("format"), int)


def load(folder: Path, dtype: str | None = None) -> Loaded:
    """The model of a checkpoint folder on the CPU.

    ``dtype`` is that of the weights: float32, bfloat16 or float64; None takes bfloat16 where the file has it,
    else float32. At any time there is one copy of the weights in memory, and the tensors of theirs that make
    up one of ours.

    Raises:
        ValueError: a family that is not known, a configuration that asks for what is not built, tensors that
            are missing, unexpected, or of another shape, by name.
    """
    config = files.read_json(folder / "config.json")
    found = layout_of(config)
    if found is None:
        kind = config.get("model_type", config.get("architectures"))
        known = ", ".join(sorted(name for family in families().values() for name in family.LAYOUTS))
        raise ValueError(
            f"{folder} holds a checkpoint of {kind if kind else 'an unknown kind'}, which is none of those "
            f"that are read: {known}"
        )
    family, name = found
    stored = files.stored(folder)
    for field in ("num_hidden_layers", "n_layer"):
        if isinstance(config.get(field), int) and config[field] > len(stored):
            # Before a spec is made, which would take as long and as much as somebody wrote there.
            raise ValueError(
                f"{folder} does not fit its config.json: {field} is {config[field]}, and the weights are "
                f"{len(stored)} tensors"
            )
    reading = family.read(config)
    model = built(reading.spec, folder)
    names = renaming.table(family.LAYOUTS[name], shapes(model), reading.lists)
    check(names, stored, model, folder)
    target = chosen_dtype(dtype, stored)
    check_tied(names, stored, folder)
    fill(model, names, stored, target)
    order = {k: str(v.dtype).removeprefix("torch.") for k, v in stored.items() if not names.is_ignored(k)}
    origin = {"layout": name, "config": config, "dtypes": order}
    return Loaded(model.eval(), configuration.validate(reading.spec), origin)


def chosen_dtype(dtype: str | None, stored: Mapping[str, files.Stored]) -> torch.dtype:
    """The dtype of the weights: as asked, else bfloat16 where most numbers are, else float32."""
    if dtype is None:
        count: dict[torch.dtype, int] = {}
        for one in stored.values():
            count[one.dtype] = count.get(one.dtype, 0) + torch.Size(one.shape).numel()
        most = max(count, key=lambda kind: count[kind])
        return most if most in (torch.bfloat16, torch.float64) else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"weights are {', '.join(DTYPES)}; got {dtype!r}")
    return DTYPES[dtype]


def built(spec: Mapping[str, Any], folder: Path) -> Model:
    """The model of a spec, its large tensors not filled. Raises ValueError where it fits in no memory."""
    try:
        with Unfilled():
            model: Model = configuration.build(spec)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        # Sizes that nobody means, of a file that was tampered with: whatever PyTorch makes of them.
        why = str(error).strip().partition("\n")[0]
        raise ValueError(f"{folder}: no model of the sizes in its config.json can be made: {why}") from None
    return model


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a file holds, tied ones under their first name."""
    first = {name for name, _ in model.named_parameters()}
    again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
    return {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in again}


def check(names: renaming.Table, stored: Mapping[str, files.Stored], model: nn.Module, folder: Path) -> None:
    """Refuse a checkpoint by name where tensors are missing, unexpected, of another shape or not in full."""
    there = {name: one.shape for name, one in stored.items()}
    wanted: dict[str, tuple[int, ...]] = {}
    ours = shapes(model)
    for one in names.made:
        for piece, shape in renaming.expected(one, ours[one.ours]):
            whole = list(shape)
            whole[one.rule.dim] *= piece.of
            wanted[piece.name] = tuple(whole)
    needed = names.names()
    problems = [f"{name} is missing" for name in sorted(needed - set(there))]
    problems += [
        f"{name} is not known in this layout"
        for name in sorted(set(there) - needed - set(names.tied))
        if not names.is_ignored(name)
    ]
    problems += [
        f"{name} has shape {there[name]}, config.json asks for {shape}"
        for name, shape in wanted.items()
        if name in there and there[name] != shape
    ]
    problems += [
        f"{name} holds {str(stored[name].dtype).removeprefix('torch.')}, which is no weight in full"
        for name in sorted(needed & set(there))
        if not stored[name].dtype.is_floating_point
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError(f"{folder} does not fit its config.json: {'; '.join(problems[:5])}{more}")


def check_tied(names: renaming.Table, stored: Mapping[str, files.Stored], folder: Path) -> None:
    """Refuse copies of a tied tensor that differ from it: which of the two is meant cannot be known."""
    for copy, source in names.tied.items():
        if copy in names.names() or copy not in stored:
            continue
        if source not in stored or not torch.equal(stored[copy].read(), stored[source].read()):
            what = (
                "Set tie_word_embeddings to false there if the head is a matrix of its own"
                if copy.endswith("head.weight")
                else "Both stand for one matrix: take the files from where the checkpoint comes from"
            )
            raise ValueError(f"{folder}: config.json ties {copy} to {source}, and they differ. {what}")


def choosing(model: nn.Module) -> list[MoE]:
    """The mixtures with a buffer that experts are chosen by: rounded to bfloat16 it would choose others."""
    return [m for m in model.modules() if isinstance(m, MoE) and m.correction is not None]


def rates(model: nn.Module) -> list[nn.Parameter]:
    """The rates of decay and step sizes of all mixers, and the skips D of Mamba and Mamba-2."""
    mixers = [m for m in model.modules() if isinstance(m, Mixer)]
    groups = [(mixer, group) for mixer in mixers for group in mixer.parameter_groups()]
    slow = [g for mixer, g in groups if g.max_lr is not None or isinstance(mixer, Mamba | Mamba2)]
    return [p for group in slow for p in group.parameters]


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Another dtype for all but the rates and what chooses experts, which are float32 at least."""
    kept = [(p, p.data) for p in rates(model)]
    choices = [(moe, moe.correction) for moe in choosing(model)]
    model.to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    for parameter, data in kept:
        parameter.data = data.to(wide)
    for moe, correction in choices:
        moe.correction = correction.to(wide)


def fill(
    model: nn.Module, names: renaming.Table, stored: Mapping[str, files.Stored], dtype: torch.dtype
) -> None:
    """Put the tensors of theirs into the model, one of ours after the other.

    Rates of decay and step sizes stay in float32 at least: rounded to bfloat16 they are other time scales.
    So do the skips, which files of bfloat16 hold in float32 too.
    """
    ours = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    wide = {id(tensor) for tensor in (*rates(model), *(moe.correction for moe in choosing(model)))}
    # The largest first: while one is read it is there twice, which matters where all others are there too.
    for one in sorted(names.made, key=lambda one: ours[one.ours].numel(), reverse=True):
        held = {p.name: stored[p.name].read() for row in one.rows for p in row}
        tensor = ours[one.ours]
        kind = torch.promote_types(dtype, torch.float32) if id(tensor) in wide else dtype
        tensor.data = renaming.assembled(one, held, tensor.shape, kind)
    cast_unsaved(model, dtype)

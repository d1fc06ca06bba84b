"""Weights as int8 with one scale for each output, in any model; what is computed stays as precise as it was.

Rounded are the matrices that tokens are multiplied by, and the table of the vocabulary: nearly all bytes of a
model. Convolutions, norms, biases, A, D and first states stay in full, and so does whatever is computed from
the input: activations, step sizes, states.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from hippodrome.layers.quantized import KINDS, Rounded, replace

DTYPES = ("int8",)
KEEP = ("router",)
"""Names of layers that stay in full unless others are named: a router is small, and it decides."""
LEAST = 16
"""Inputs from which a map is rounded: below, the scales take as many bytes as are saved."""


class Rounding(NamedTuple):
    """What rounding did to one layer: the root of its mean squared error over that of its weights, and the
    bytes of its weights before and after, scales included."""

    name: str
    kind: str
    shape: tuple[int, ...]
    error: float
    before: int
    after: int


def weight_only(model: nn.Module, *, dtype: str = "int8", keep: Sequence[str] = KEEP) -> list[Rounding]:
    """Rounds the weights of a model in place, and tells what that did to each layer, in the model's order.

    Args:
        model: any; a layer that stands in several places is rounded once.
        dtype: "int8", symmetric, by the largest size of each output's weights.
        keep: names of layers that stay in full: of one layer, or the end of its dotted name (``head``,
            ``mixer.dt_proj``), with ``*`` and ``?`` for letters.

    Raises:
        ValueError: an unknown dtype, a model that holds int8 already or nothing to round, a name in ``keep``
            besides the default that fits no layer, or a weight that is infinite or not a number.
    """
    if dtype not in DTYPES:
        raise ValueError(f"weights are rounded to {' or '.join(DTYPES)}; got {dtype!r}. Name one of these.")
    held = [name for name, module in model.named_modules() if isinstance(module, Rounded)]
    if held:
        raise ValueError(
            f"the model's weights are int8 already ({held[0]} and {len(held) - 1} more): round the model "
            f"that it was made of."
        )
    there = {name: module for name, module in model.named_modules() if type(module) in KINDS}
    for pattern in keep:
        if pattern not in KEEP and not any(_fits(pattern, name) for name in there):
            known = sorted({name.rpartition(".")[2] for name in there})
            raise ValueError(
                f"no layer with weights to round is called {pattern!r}; there are "
                f"{', '.join(known) or 'none'}."
            )
    chosen = []
    for name, module in there.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        small = isinstance(module, nn.Linear) and weight.shape[-1] < LEAST
        if small or any(_fits(pattern, name) for pattern in keep):
            continue
        # All are looked at before the first is rounded: a model is never left half in int8.
        if weight.numel() and not all(bool(bound.isfinite()) for bound in weight.detach().aminmax()):
            raise ValueError(f"{name}: a weight is infinite or not a number, and no int8 stands for that.")
        chosen.append(name)
    # Nothing here may hold the weights in full of layers that have been rounded.
    del there
    module = weight = None
    found = []
    for name in chosen:
        module = model.get_submodule(name)
        kind, weight = type(module).__name__, module.weight
        assert isinstance(weight, Tensor)
        layer = replace(model, name)
        found.append(
            Rounding(
                name,
                kind,
                tuple(weight.shape),
                _error(weight, layer),
                weight.nbytes,
                layer.int8.nbytes + layer.scale_bits.nbytes,
            )
        )
    if not found:
        raise ValueError(
            "the model has no weights that are rounded to int8: linear maps of 16 channels or more, tables "
            "of a vocabulary, stacks of experts."
        )
    return found


def bytes_of(model: nn.Module) -> int:
    """Bytes of everything that a file of the model holds, what is tied once."""
    held = {id(tensor): tensor.nbytes for tensor in _persistent(model)}
    return sum(held.values())


def _persistent(model: nn.Module) -> Iterable[Tensor]:
    return model.state_dict(keep_vars=True).values()


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _error(weight: Tensor, layer: Rounded) -> float:
    """|W - s q| / |W|, a block of rows at a time, so that no copy of the whole exists."""
    rows, q = weight.detach().flatten(0, -2), layer.int8.flatten(0, -2)
    scale = layer.scale.flatten()
    off = size = 0.0
    for low in range(0, len(rows), 4096):
        part = slice(low, low + 4096)
        wide = rows[part].float()
        size += float(wide.square().sum(dtype=wide.dtype))
        off += float((wide - q[part] * scale[part, None]).square().sum())
    return (off / size) ** 0.5 if size else 0.0

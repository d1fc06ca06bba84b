"""Layers whose weights are int8 with one float32 scale for each row: a map, a table, a stack of maps.

Each stands where its layer in full precision stood, under the same name, and tells the same ``weight``: what
multiplies by that instead of calling the layer stays right, at the cost of widening it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int, Int8, Int32
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.stacked_projection import StackedProjection
from hippodrome.layers.step_size import StepProjection
from hippodrome.ops.quantized_linear import quantized_linear, quantized_rows, rounded
from hippodrome.ops.quantized_linear.torch_ import widened


class Rounded(nn.Module, ABC):
    """Rows of int8 and their scales, and the dtype that the layer speaks in, which follows ``Module.to``."""

    int8: Int8[Tensor, "*rows i"]
    scale_bits: Int32[Tensor, "*rows"]
    like: Tensor

    def _hold(self, weight: Tensor, filled: bool) -> None:
        if filled:
            q, scale = rounded(weight)
        else:
            q = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
            scale = torch.empty(weight.shape[:-1], dtype=torch.float32, device=weight.device)
        self.register_buffer("int8", q)
        # Kept as bits: no change of the model's dtype may round a scale.
        self.register_buffer("scale_bits", scale.view(torch.int32))
        self.register_buffer("like", weight.new_empty(0), persistent=False)

    @property
    def scale(self) -> Float[Tensor, "*rows"]:
        """s, one for each row, float32."""
        return self.scale_bits.view(torch.float32)

    @property
    def weight(self) -> Float[Tensor, "*rows i"]:
        """s q, the rows in full, in the layer's dtype: formed anew at every call."""
        return widened(self.int8, self.scale, self.like.dtype)

    @abstractmethod
    def forward(self, *inputs: Any) -> Tensor:
        """Rows in, rows out."""

    def extra_repr(self) -> str:
        """The shape of the weights."""
        return f"{tuple(self.int8.shape)}, int8"


class QuantizedProjection(Rounded):
    """x W^T + bias with W rounded to int8, symmetrically, by the largest size of each row.

    Args:
        base: the map that it stands for. Its bias is kept as it is; the bias of a map to step sizes is still
            left to the scan.
        filled: whether to round the weights of ``base``, or to wait for those that a file holds.

    Raises:
        ValueError: a weight is infinite or not a number.
    """

    def __init__(self, base: nn.Linear, filled: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self._hold(base.weight.detach(), filled)
        self.bias = base.bias
        self.adds_bias = base.bias is not None and not isinstance(base, StepProjection)

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        """Each row on its own."""
        return quantized_linear(x, self.int8, self.scale, self.bias if self.adds_bias else None)


class QuantizedEmbedding(Rounded):
    """A table of vectors, rounded as the maps are, which may be the matrix of a head as well.

    Args:
        base: the table that it stands for.
        filled: whether to round its weights, or to wait for those that a file holds.

    Raises:
        ValueError: a weight is infinite or not a number, or the table has options besides its weights.
    """

    def __init__(self, base: nn.Embedding, filled: bool = True) -> None:
        super().__init__()
        if base.padding_idx is not None or base.max_norm is not None:
            raise ValueError("a table with a padding row or a bound on its vectors is not rounded to int8.")
        self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim
        self._hold(base.weight.detach(), filled)

    def forward(self, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids d"]:
        """The vectors of these ids."""
        return quantized_rows(ids, self.int8, self.scale, self.like.dtype)

    def product(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Each row times every vector: the head that is tied to the table."""
        return quantized_linear(x, self.int8, self.scale)


class QuantizedStack(Rounded):
    """y_r = W_g x_r with every W_g of a stack rounded to int8.

    Args:
        base: the stack that it stands for.
        filled: whether to round its weights, or to wait for those that a file holds.

    Raises:
        ValueError: a weight is infinite or not a number.
    """

    def __init__(self, base: StackedProjection, filled: bool = True) -> None:
        super().__init__()
        self._hold(base.weight.detach(), filled)

    def forward(self, x: Float[Tensor, "n i"], counts: Int[Tensor, "g"]) -> Float[Tensor, "n o"]:
        """Rows (n, i), those of one group side by side, ``counts`` of them in each.

        Raises:
            ValueError: the counts are not those of the rows.
        """
        sizes = counts.tolist()
        if sum(sizes) != len(x) or min(sizes) < 0:
            raise ValueError(
                f"the rows of all groups must be the rows of x; got counts {sizes} for {len(x)} rows. Count "
                f"how often each group stands in the sorted list of owners."
            )
        scale = self.scale
        pieces = [
            quantized_linear(rows, self.int8[group], scale[group])
            for group, rows in enumerate(x.split_with_sizes(sizes))
            if len(rows)
        ]
        return torch.cat(pieces) if pieces else x.new_empty(0, self.int8.shape[1])


KINDS: dict[type[nn.Module], Callable[..., Rounded]] = {
    nn.Linear: QuantizedProjection,
    Projection: QuantizedProjection,
    StepProjection: QuantizedProjection,
    nn.Embedding: QuantizedEmbedding,
    StackedProjection: QuantizedStack,
}
"""What stands for what. Other kinds of maps do more to their weights than multiply by them, and stay."""


def replace(model: nn.Module, name: str, filled: bool = True) -> Rounded:
    """Puts the int8 form of a layer in its place, wherever else in the model it stands too.

    Raises:
        ValueError: the layer has no such form, or a weight is infinite or not a number.
    """
    base = model.get_submodule(name)
    made = KINDS.get(type(base))
    if made is None:
        raise ValueError(f"{name} is a {type(base).__name__}, which has no form in int8.")
    try:
        layer = made(base, filled).train(base.training)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is base:
                parent._modules[key] = layer
    return layer


def stand_in(model: nn.Module, names: Iterable[str]) -> None:
    """Makes room for int8 weights where the names of a file's tensors say that it holds such.

    Raises:
        ValueError: a layer of such a name has no form in int8.
    """
    there = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        owner, _, leaf = name.rpartition(".")
        # A name that the model has not is told of by whoever loads.
        if leaf == "int8" and owner in there and not isinstance(model.get_submodule(owner), Rounded):
            replace(model, owner, filled=False)

"""A linear map for each modality: every token goes through that of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import StepProjection
from hippodrome.ops.linear import linear


class ModalProjection(nn.ModuleList):
    """x W_m^T for a token of modality m: the local experts of Mixture-of-Mamba.

    Liang et al. 2025, "Mixture-of-Mamba: enhancing multi-modal state-space models with modality-aware
    sparsity", arXiv 2501.16295. Tokens are brought together by modality, so that each map is one product over
    its own tokens and the work is that of one map. Under a compiler, which knows no numbers of tokens, every
    map runs over all of them and the right results are kept.

    Args:
        d_in: channels in.
        d_out: channels out.
        modalities: how many maps; with one it serves all tokens.
    """

    def __init__(self, d_in: int, d_out: int, modalities: int) -> None:
        super().__init__(Projection(d_in, d_out, bias=False) for _ in range(modalities))

    def forward(
        self, x: Float[Tensor, "*tokens i"], modality: Int[Tensor, "*tokens"] | None
    ) -> Float[Tensor, "*tokens o"]:
        """Each token by the map of its modality; None takes the first map for all."""
        return by_modality(x, modality, list(self))


class ModalSteps(nn.ModuleList):
    """Raw step sizes, W_m x + b_m in float32 or wider for a token of modality m, before softplus.

    Each modality starts from step sizes of its own draw, as ``initial_step_bias`` says.
    """

    def __init__(
        self, rank: int, channels: int, modalities: int, dt_min: float, dt_max: float, dt_floor: float
    ) -> None:
        super().__init__(StepProjection(rank, channels, dt_min, dt_max, dt_floor) for _ in range(modalities))

    def forward(
        self, x: Float[Tensor, "*tokens r"], modality: Int[Tensor, "*tokens"] | None
    ) -> Float[Tensor, "*tokens e"]:
        """Each token by the map of its modality, its bias added; None takes the first map for all."""
        return by_modality(x, modality, [_biased(one) for one in self])


def by_modality(
    x: Float[Tensor, "*tokens i"],
    modality: Int[Tensor, "*tokens"] | None,
    maps: Sequence[Callable[[Tensor], Tensor]],
) -> Float[Tensor, "*tokens o"]:
    """Each token through the map of its modality; the only or the first one where none is told.

    Raises:
        ValueError: a modality for which there is no map.
    """
    if modality is None or len(maps) == 1:
        return maps[0](x)
    if torch.compiler.is_compiling():
        y = maps[0](x)
        for m, one in enumerate(maps[1:], 1):
            y = torch.where((modality == m)[..., None], one(x), y)
        return y
    flat, kind = x.reshape(-1, x.shape[-1]), modality.reshape(-1)
    if int(kind.min()) < 0 or int(kind.max()) >= len(maps):
        raise ValueError(
            f"a token's modality is a number from 0 to {len(maps) - 1}; got numbers from {int(kind.min())} "
            f"to {int(kind.max())}. Give the mixer as many modalities as the data has."
        )
    counts = torch.bincount(kind, minlength=len(maps)).tolist()
    if max(counts) == len(kind):
        return maps[counts.index(len(kind))](x)
    order = torch.argsort(kind, stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    pieces = _Permuted.apply(flat, order, back).split_with_sizes(counts)
    found = torch.cat([one(piece) for one, piece in zip(maps, pieces, strict=True) if len(piece)])
    return _Permuted.apply(found, back, order).view(*x.shape[:-1], -1)


def _biased(one: nn.Module) -> Callable[[Tensor], Tensor]:
    weight: Any = one.weight
    bias: Any = one.bias
    wide = torch.promote_types(bias.dtype, torch.float32)
    return lambda x: linear(x, weight).to(wide) + bias.to(wide)


class _Permuted(torch.autograd.Function):
    """Rows in another order; the gradient goes back by the inverse order, which is a plain copy too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        """Row order[i] of x at i."""
        ctx.save_for_backward(order, back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The same with the orders changed over, so that it can be differentiated again."""
        order, back = ctx.saved_tensors
        return _Permuted.apply(grad, back, order), None, None

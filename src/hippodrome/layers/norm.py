"""Norms: root-mean-square normalization, plain and gated by groups, with statistics in float32 or wider."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.rms_norm import rms_norm

NormKind = Literal["rms", "rms1", "layer", "none"]
"""Of "rms1" the scales are 1 + a parameter, which starts at zero, as in Gemma."""


class RMSNorm(nn.Module):
    """w * x / sqrt(mean(x^2) + eps) over the last axis (Zhang, Sennrich 2019, arXiv 1910.07467, equation 4).

    Statistics are taken in float32 at least; the result has the dtype of the input.

    Args:
        d_model: channels.
        eps: added to the mean square.
        groups: equal runs of channels, each with a mean square of its own.
        weighted: whether w is a parameter; otherwise it is one throughout, and no state dict holds it.
        from_one: whether w is 1 + the parameter, which starts at zero; the sum is formed in float32 at least.

    Raises:
        ValueError: ``groups`` does not divide ``d_model``.
    """

    weight: Tensor

    def __init__(
        self,
        d_model: int,
        eps: float = 1e-5,
        groups: int = 1,
        *,
        weighted: bool = True,
        from_one: bool = False,
    ) -> None:
        super().__init__()
        _check_groups(groups, d_model)
        self.eps, self.groups, self.from_one = eps, groups, from_one and weighted
        if weighted:
            self.weight = nn.Parameter(torch.zeros(d_model) if from_one else torch.ones(d_model))
        else:
            self.register_buffer("weight", torch.ones(d_model), persistent=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The normalized input."""
        weight = self.weight
        if self.from_one:
            weight = 1.0 + weight.to(torch.promote_types(weight.dtype, torch.float32))
        return rms_norm(x, weight, eps=self.eps, groups=self.groups)


class GatedRMSNorm(nn.Module):
    """w * RMS_group(y * silu(z)): the gate first, then a norm over each of ``groups`` equal runs of channels.

    The output norm of Mamba-2 (Dao, Gu 2024, arXiv 2405.21060, section 7.1, figure 6), with groups as in its
    tensor-parallel form (section 8.1). With ``before_gate`` it is w * RMS_group(y) * silu(z).

    Raises:
        ValueError: ``groups`` does not divide ``d_model``.
    """

    def __init__(
        self, d_model: int, groups: int = 1, eps: float = 1e-5, *, before_gate: bool = False
    ) -> None:
        super().__init__()
        _check_groups(groups, d_model)
        self.groups = groups
        self.eps = eps
        self.before_gate = before_gate
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, y: Float[Tensor, "*b d"], z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The gated, normalized input."""
        if self.before_gate:
            return rms_norm(y, self.weight, eps=self.eps, groups=self.groups) * F.silu(z)
        return rms_norm(y, self.weight, z, eps=self.eps, groups=self.groups)


def _check_groups(groups: int, d_model: int) -> None:
    if groups < 1 or d_model % groups:
        raise ValueError(
            f"The groups of a norm must divide its channels; got {groups} groups for {d_model} channels. "
            "Take a divisor."
        )


class PointNorm(nn.Module):
    """One norm for every point of a grid: the last axis is runs of channels, each normalized by itself.

    Args:
        norm: of as many channels as a run has.
        channels: of a run; it divides the last axis.
    """

    def __init__(self, norm: nn.Module, channels: int) -> None:
        super().__init__()
        self.norm, self.channels = norm, channels

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The normalized input."""
        return self.norm(x.unflatten(-1, (-1, self.channels))).flatten(-2)


def build_norm(kind: str, d_model: int, channels: int | None = None, eps: float = 1e-5) -> nn.Module:
    """The norm of this name over d_model channels, or over each run of ``channels`` of them.

    ``eps`` is added to the mean square, or to the variance.

    Raises:
        ValueError: there is no such norm.
    """
    if channels is not None:
        return PointNorm(build_norm(kind, channels, eps=eps), channels)
    if kind in ("rms", "rms1"):
        return RMSNorm(d_model, eps, from_one=kind == "rms1")
    if kind == "layer":
        return nn.LayerNorm(d_model, eps)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"A norm is 'rms', 'rms1', 'layer' or 'none'; got {kind!r}.")

"""Root-mean-square norm: w * v / sqrt(mean(v^2) + eps) over groups of channels, with v = x or x * silu(z).

Zhang, Sennrich 2019, arXiv 1910.07467, equation 4. With a gate z it is the norm before the last map of
Mamba-2 (Dao, Gu 2024, arXiv 2405.21060, section 7.1, figure 6): the gate first, then the norm, over each of
``groups`` equal runs of channels as in its tensor-parallel form (section 8.1).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.rms_norm import few, numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)
SMALL = 4096
"""Numbers up to which the CPU's time is that of the call, and a call of PyTorch's own is the shortest."""


def rms_norm(
    x: Float[Tensor, "*rows d"],
    weight: Float[Tensor, "d"],
    z: Float[Tensor, "*rows d"] | None = None,
    *,
    eps: float = 1e-5,
    groups: int = 1,
    backend: str | None = None,
) -> Float[Tensor, "*rows d"]:
    """The norm of each run of channels, of x's shape and dtype; statistics in float32 at least.

    Args:
        x: input, (..., d), with any number of axes before the channels.
        weight: scale of each channel, (d).
        z: gate, of x's shape: x is multiplied by silu(z) before the norm; None for no gate.
        eps: added to the mean square.
        groups: equal runs of channels, each with a mean square of its own.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, ``groups`` does not divide d, or no backend can run these
            tensors; the message says why.
    """
    if backend is None and not watched() and few.fits(x, weight, z, groups):
        return few.rms_norm(x, weight, z, eps, groups)
    axes = " ".join([*(f"n{i}" for i in range(x.dim() - 1)), "d"])
    sizes = check_arguments("rms_norm", {"x": (x, axes), "weight": (weight, "d"), "z": (z, axes)})
    if groups < 1 or sizes["d"] % groups:
        raise ValueError(
            f"rms_norm: groups must divide the channels; got {groups} groups for d = {sizes['d']}. "
            "Take a divisor."
        )
    if (
        backend is None
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and x.numel() <= SMALL
    ):
        backend = "torch"
    return choose("rms_norm", BACKENDS, backend, x, weight, z).rms_norm(x, weight, z, eps, groups)


def flops(rows: int, d: int, gated: bool = False) -> int:
    """Operations of one forward call; an exponential, an addition, a multiplication count one each."""
    return rows * d * (9 if gated else 4)


def bytes_moved(rows: int, d: int, gated: bool = False, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (rows * (3 if gated else 2) * d + d) * item

"""One token of the selective scan, its state overwritten.

h = exp(dt A) h + dt B u, y = (C . h + D u) silu(z):

``ops.selective_scan`` on a sequence of one, for decoding loops that own their state. No gradients.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.selective_scan_update import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def selective_scan_update(
    u: Float[Tensor, "b d"],
    dt: Float[Tensor, "b d"],
    A: Float[Tensor, "d n"],
    B: Float[Tensor, "b n"] | Float[Tensor, "b g n"],
    C: Float[Tensor, "b n"] | Float[Tensor, "b g n"],
    D: Float[Tensor, "d"] | None,
    z: Float[Tensor, "b d"] | None,
    dt_bias: Float[Tensor, "d"] | None,
    state: Float[Tensor, "b d n"],
    *,
    softplus: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "b d"]:
    """The output for one token (b, d) in the dtype of u; ``state`` (b, d, n) is overwritten with the next.

    Arguments as in ``ops.selective_scan``, without the axis of time.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    b, d, n = state.shape
    g = B.shape[1] if B.dim() == 3 else 1
    mixing = (b, g, n) if B.dim() == 3 else (b, n)
    if not (
        u.shape == dt.shape == (b, d)
        and A.shape == (d, n)
        and B.shape == C.shape == mixing
        and d % max(g, 1) == 0
        and (D is None or D.shape == (d,))
        and (z is None or z.shape == (b, d))
        and (dt_bias is None or dt_bias.shape == (d,))
    ):
        _refuse(u, dt, A, B, C, D, z, dt_bias, state)
    arguments = (u, dt, A, B, C, D, z, dt_bias, state)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.selective_scan_update(*arguments, softplus)
    chosen = choose("selective_scan_update", BACKENDS, backend, *arguments)
    y: Tensor = chosen.selective_scan_update(*arguments, softplus)
    return y


def _refuse(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
) -> None:
    """Say what is wrong with shapes. The door, called in each layer of each token, only finds that out."""
    sizes = check_arguments(
        "selective_scan_update",
        {
            "state": (state, "b d n"),
            "u": (u, "b d"),
            "dt": (dt, "b d"),
            "A": (A, "d n"),
            "B": (B, "b n | b g n"),
            "C": (C, "b n | b g n"),
            "D": (D, "d"),
            "z": (z, "b d"),
            "dt_bias": (dt_bias, "d"),
        },
    )
    raise ValueError(
        "selective_scan_update: B and C must be grouped alike, in groups that divide the channels; got "
        f"{tuple(B.shape)} and {tuple(C.shape)} for d = {sizes['d']}."
    )


def flops(b: int, d: int, n: int) -> int:
    """Operations of one call; an exponential, an addition, a multiplication count one each."""
    return b * d * (7 * n + 8)


def bytes_moved(b: int, d: int, n: int, g: int = 1, item: int = 4) -> int:
    """Bytes one call with a gate must read and write at least."""
    return item * (b * (4 * d + 2 * g * n + 2 * d * n) + d * (n + 2))

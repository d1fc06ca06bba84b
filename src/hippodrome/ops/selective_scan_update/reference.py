"""Definition of one token of the selective scan: the scan's own, of a sequence of one."""

from torch import Tensor

from hippodrome.ops.selective_scan.reference import selective_scan

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def selective_scan_update(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
) -> Tensor:
    """The output; arguments as at the door."""
    gate = None if z is None else z[:, None]
    u, dt = u[:, None], dt[:, None]
    y, last = selective_scan(u, dt, A, B[:, None], C[:, None], D, gate, dt_bias, state, None, softplus)
    state.copy_(last)
    return y[:, 0]

"""Gated linear attention: a matrix-valued state whose every key channel decays at its own rate.

S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T  (k by v),  y_t = S_t^T q_t.

Yang, Wang, Shen, Panda, Kim 2023, "Gated linear attention transformers with hardware-efficient training",
arXiv 2312.06635, equation 3 and section 4.1.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.gla import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def gla(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    log_decay: Float[Tensor, "b t h k"],
    initial_state: Float[Tensor, "b h k v"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Outputs y (b, t, h, v) in the dtype of v, and the last state (b, h, k, v) in at least float32.

    Args:
        q: queries, (b, t, h, k), scaled as the caller wants them.
        k: keys, (b, t, h, k).
        v: values, (b, t, h, v).
        log_decay: logarithm of the decay of each key channel, at most zero, (b, t, h, k).
        initial_state: S before the first step, (b, h, k, v); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "gla",
        {
            "q": (q, "b t h k"),
            "k": (k, "b t h k"),
            "v": (v, "b t h v"),
            "log_decay": (log_decay, "b t h k"),
            "initial_state": (initial_state, "b h k v"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("gla", BACKENDS, backend, q, k, v, log_decay, initial_state, resets)
    return chosen.gla(q, k, v, log_decay, initial_state, resets)


def flops(b: int, t: int, h: int, k: int, v: int, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in its chunked form."""
    return b * t * h * (2 * chunk * (k + v) + 4 * k * v)


def bytes_moved(b: int, t: int, h: int, k: int, v: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return b * h * (t * (3 * k + 2 * v) + 2 * k * v) * item

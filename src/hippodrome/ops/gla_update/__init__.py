"""One token of gated linear attention, its state overwritten: S = diag(exp(log_decay)) S + k v^T, y = S^T q.

``ops.gla`` on a sequence of one, for decoding loops that own their state. No gradients.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.gla_update import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def gla_update(
    q: Float[Tensor, "b h k"],
    k: Float[Tensor, "b h k"],
    v: Float[Tensor, "b h v"],
    log_decay: Float[Tensor, "b h k"],
    state: Float[Tensor, "b h k v"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "b h v"]:
    """The output for one token (b, h, v) in the dtype of v; ``state`` (b, h, k, v) is overwritten.

    Args:
        q: queries, (b, h, k), scaled as the caller wants them.
        k: keys, (b, h, k).
        v: values, (b, h, v).
        log_decay: logarithm of the decay of each key channel, at most zero, (b, h, k).
        state: S before the token, in float32 or wider, (b, h, k, v).
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    b, h, keys, values = state.shape
    if not (q.shape == k.shape == log_decay.shape == (b, h, keys) and v.shape == (b, h, values)):
        check_arguments(
            "gla_update",
            {
                "state": (state, "b h k v"),
                "q": (q, "b h k"),
                "k": (k, "b h k"),
                "v": (v, "b h v"),
                "log_decay": (log_decay, "b h k"),
            },
        )
    arguments = (q, k, v, log_decay, state)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.gla_update(*arguments)
    y: Tensor = choose("gla_update", BACKENDS, backend, *arguments).gla_update(*arguments)
    return y


def flops(b: int, h: int, k: int, v: int) -> int:
    """Operations of one call; an exponential, an addition, a multiplication count one each."""
    return b * h * k * (5 * v + 1)


def bytes_moved(b: int, h: int, k: int, v: int, item: int = 4) -> int:
    """Bytes one call must read and write at least."""
    return b * h * (3 * k + 2 * v + 2 * k * v) * item

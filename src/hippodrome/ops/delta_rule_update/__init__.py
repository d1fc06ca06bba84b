"""One token of the delta rule, its state overwritten, with or without a gate a = exp(log_decay):

S = a S;  S = S + k (beta (v - S^T k))^T;  y = S^T q:

``ops.delta_rule`` on a sequence of one, for decoding loops that own their state. No gradients.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.delta_rule_update import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def delta_rule_update(
    q: Float[Tensor, "b h k"],
    k: Float[Tensor, "b h k"],
    v: Float[Tensor, "b h v"],
    beta: Float[Tensor, "b h"],
    log_decay: Float[Tensor, "b h"] | None,
    state: Float[Tensor, "b h k v"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "b h v"]:
    """The output for one token (b, h, v) in the dtype of v; ``state`` (b, h, k, v) is overwritten.

    Args:
        q: queries, (b, h, k), scaled as the caller wants them.
        k: keys, (b, h, k); of length one, or beta |k|^2 at most 2, else the state grows.
        v: values, (b, h, v).
        beta: how much of the stored value is replaced, (b, h).
        log_decay: logarithm of the gate, at most zero, (b, h); no gate when None.
        state: S before the token, in float32 or wider, (b, h, k, v).
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    b, h, keys, values = state.shape
    if not (
        q.shape == k.shape == (b, h, keys)
        and v.shape == (b, h, values)
        and beta.shape == (b, h)
        and (log_decay is None or log_decay.shape == (b, h))
    ):
        check_arguments(
            "delta_rule_update",
            {
                "state": (state, "b h k v"),
                "q": (q, "b h k"),
                "k": (k, "b h k"),
                "v": (v, "b h v"),
                "beta": (beta, "b h"),
                "log_decay": (log_decay, "b h"),
            },
        )
    arguments = (q, k, v, beta, log_decay, state)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.delta_rule_update(*arguments)
    y: Tensor = choose("delta_rule_update", BACKENDS, backend, *arguments).delta_rule_update(*arguments)
    return y


def flops(b: int, h: int, k: int, v: int) -> int:
    """Multiplications and additions of one call with a gate."""
    return b * h * v * (7 * k + 2)


def bytes_moved(b: int, h: int, k: int, v: int, item: int = 4) -> int:
    """Bytes one call with a gate must read and write at least."""
    return b * h * (2 * k + 2 * v + 2 + 2 * k * v) * item

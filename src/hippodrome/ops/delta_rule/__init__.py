"""The delta rule: a matrix-valued state that replaces what it holds under a key, with or without a gate.

S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T  (k by v),  y_t = S_t^T q_t,

with a_t = exp(log_decay_t), 1 where there is no gate. With keys of length one and beta = 1 the value stored
under k_t becomes v_t. Equal to S_t = a_t S_{t-1} + k_t w_t^T, w_t = beta_t (v_t - a_t S_{t-1}^T k_t).

Schlag, Irie, Schmidhuber 2021, "Linear transformers are secretly fast weight programmers", arXiv 2102.11174,
section 4.2; Yang, Wang, Zhang, Shen, Kim 2024, "Parallelizing linear transformers with the delta rule over
sequence length", arXiv 2406.06484, section 3; with the gate: Yang, Kautz, Hatamizadeh 2024, "Gated delta
networks", arXiv 2412.06464, equation 10.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.delta_rule import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def delta_rule(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    beta: Float[Tensor, "b t h"],
    log_decay: Float[Tensor, "b t h"] | None = None,
    initial_state: Float[Tensor, "b h k v"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Outputs y (b, t, h, v) in the dtype of v, and the last state (b, h, k, v) in at least float32.

    Args:
        q: queries, (b, t, h, k), scaled as the caller wants them.
        k: keys, (b, t, h, k); of length one, or beta |k|^2 at most 2, else the state grows.
        v: values, (b, t, h, v).
        beta: how much of the stored value is replaced, 0 to 1 (to 2 for eigenvalues below zero), (b, t, h).
        log_decay: logarithm of the gate, at most zero, (b, t, h); no gate when None.
        initial_state: S before the first step, (b, h, k, v); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "delta_rule",
        {
            "q": (q, "b t h k"),
            "k": (k, "b t h k"),
            "v": (v, "b t h v"),
            "beta": (beta, "b t h"),
            "log_decay": (log_decay, "b t h"),
            "initial_state": (initial_state, "b h k v"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("delta_rule", BACKENDS, backend, q, k, v, beta, log_decay, initial_state, resets)
    return chosen.delta_rule(q, k, v, beta, log_decay, initial_state, resets)


def flops(b: int, t: int, h: int, k: int, v: int, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in its chunked form."""
    return b * t * h * (2 * chunk * (k + v) + 6 * k * v)


def bytes_moved(b: int, t: int, h: int, k: int, v: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return b * h * (t * (2 * k + 2 * v + 2) + 2 * k * v) * item

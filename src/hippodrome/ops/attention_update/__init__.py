"""One token of softmax attention over a cache of keys and values, which it is written into.

y = sum_s softmax_s(scale q . k_s) v_s over the slots that are filled, the token's own among them (Vaswani et
al. 2017, arXiv 1706.03762, equation 1); rotary positions (Su et al. 2021, arXiv 2104.09864, equation 34) turn
the pairs (x_i, x_{i + r}) of the first 2 r channels of each query and key by position * frequency_i. For
decoding loops that own their state. No gradients.
"""

from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.attention_update import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def attention_update(
    qkv: Float[Tensor, "b _"],
    frequencies: Float[Tensor, "r"] | None,
    k: Float[Tensor, "b s kv e"],
    v: Float[Tensor, "b s kv e"],
    seen: Int[Tensor, "b"],
    *,
    heads: int | None = None,
    scale: float | None = None,
    ring: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "b _"]:
    """The heads of one token side by side (b, heads * e); the cache and its count are overwritten.

    The token has the number ``seen`` and goes into slot ``seen`` mod s.

    Args:
        qkv: queries, keys and values side by side, (b, (heads + 2 kv) e); neighbouring heads share keys.
        frequencies: angles per position of the pairs that positions turn, (r) in float64; None for none.
        k: keys, turned, (b, s, kv, e).
        v: values, likewise.
        seen: tokens of each row before this one, (b).
        heads: of queries; None takes as many as qkv has channels for.
        scale: of the scores; None takes 1 / sqrt(e).
        ring: whether the token after the last slot overwrites the first; otherwise it is refused.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, no slot is free, or no backend can run these tensors.
    """
    b, s, kv, e = k.shape
    half = 0 if frequencies is None else frequencies.shape[0]
    heads = qkv.shape[-1] // max(e, 1) - 2 * kv if heads is None else heads
    scale = e**-0.5 if scale is None else scale
    if heads < 1 or heads % max(kv, 1) or 2 * half > e or qkv.shape != (b, (heads + 2 * kv) * e):
        raise ValueError(
            f"attention_update: {heads} heads over {kv} of keys with {e} channels, {2 * half} turned, "
            f"take qkv of shape ({b}, {(heads + 2 * kv) * e}) and at most {e} turned channels; got "
            f"{tuple(qkv.shape)}. Make heads a multiple of those of keys."
        )
    if v.shape != k.shape or seen.shape != (b,):
        check_arguments(
            "attention_update",
            {"k": (k, "b s kv e"), "v": (v, "b s kv e"), "seen": (seen, "b")},
        )
    if s == 0:
        raise ValueError("attention_update: the cache has no slot. Make it with room for the tokens to come.")
    arguments = (qkv, frequencies, k, v, seen)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.attention_update(*arguments, heads, scale, ring)
    y: Tensor = choose("attention_update", BACKENDS, backend, *arguments).attention_update(
        *arguments, heads, scale, ring
    )
    return y


def flops(b: int, heads: int, kv: int, e: int, s: int) -> int:
    """Multiplications and additions of one call over s filled slots."""
    return 4 * b * heads * e * s


def bytes_moved(b: int, heads: int, kv: int, e: int, s: int, item: int = 4) -> int:
    """Bytes one call must read and write at least, over s filled slots."""
    return item * b * e * (2 * kv * s + 2 * heads + 2 * kv)

"""One token of attention on the CPU: an op around two kernels, which write the token and read the cache."""

import torch
from torch import Tensor

from hippodrome.ops._light import light_op, unfit_for_kernel
from hippodrome.ops._threads import run_bytes

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, bfloat16 and float64 on the CPU, a cache in order, and make no gradients."""
    if torch.compiler.is_compiling():
        return "inside a compiler the steps are the compiler's to fuse."
    qkv, frequencies, k, v, seen = tensors
    assert qkv is not None
    assert k is not None
    assert v is not None
    assert seen is not None
    if not (k.is_contiguous() and v.is_contiguous() and seen.is_contiguous()):
        return "the kernel writes into a cache whose slots lie in order."
    if seen.dtype != torch.int64 or not seen.is_cpu:
        return f"the kernel counts in int64 on the CPU; got {seen.dtype} on {seen.device}."
    if k.dtype != v.dtype or (torch.float64 in (qkv.dtype, k.dtype) and qkv.dtype != k.dtype):
        return f"the kernel takes no float64 beside other dtypes; got {qkv.dtype}, {k.dtype} and {v.dtype}."
    if frequencies is not None and (frequencies.dtype != torch.float64 or not frequencies.is_contiguous()):
        return f"the kernel forms angles in float64; got frequencies in {frequencies.dtype}."
    return unfit_for_kernel(qkv, frequencies, k, v)


def _fake(
    qkv: Tensor,
    frequencies: Tensor | None,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    heads: int,
    scale: float,
    ring: bool,
) -> Tensor:
    return qkv.new_empty(qkv.shape[0], heads * k.shape[3])


@light_op("attention_update", _fake, mutates=("k", "v", "seen"))
def _update(
    qkv: Tensor,
    frequencies: Tensor | None,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    heads: int,
    scale: float,
    ring: bool,
) -> Tensor:
    from hippodrome.ops.attention_update import _numba_kernel as kernel

    b, s, kv, e = k.shape
    if qkv.stride(-1) != 1:
        qkv = qkv.contiguous()
    wide = torch.promote_types(qkv.dtype, torch.float32)
    y, q = qkv.new_empty(b, heads * e), qkv.new_empty(b, heads * e, dtype=wide)
    half = 0 if frequencies is None else frequencies.shape[0]
    sizes = (s, heads, kv, e, half, qkv.stride(0), int(ring))
    addresses = (
        qkv.data_ptr(),
        0 if frequencies is None else frequencies.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        seen.data_ptr(),
        q.data_ptr(),
        y.data_ptr(),
    )
    samples = (kernel.SAMPLES[qkv.dtype], kernel.SAMPLES[k.dtype], kernel.SAMPLES[wide])
    run_bytes(kernel.write, b, qkv.nbytes, sizes, addresses, *samples)
    run_bytes(kernel.read, b * heads, k.nbytes + v.nbytes, sizes, scale, addresses, *samples)
    torch.autograd.graph.increment_version([k, v, seen])
    return y


def attention_update(
    qkv: Tensor,
    frequencies: Tensor | None,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    heads: int,
    scale: float,
    ring: bool,
) -> Tensor:
    """The output; arguments as at the door."""
    y: Tensor = _update(qkv, frequencies, k, v, seen, heads, scale, ring)
    return y

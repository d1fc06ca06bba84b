"""The vectors inside the Numba kernels: bfloat16 storage bit for bit as PyTorch has it, and whole arrays."""

import numpy as np
import pytest
import torch
from numba import njit

from hippodrome.ops import _arrays
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, put, scratch, spread, store, store_some


@njit
def _copy(source, target, pieces):
    for i in range(0, pieces * LANES, LANES):
        store(target, i, load(source, i))


@njit
def _copy_some(source, target, size):
    store_some(target, 1, size, load_some(source, 1, size))


@njit
def _copy_one_by_one(source, target, size):
    for i in range(size):
        put(target, i, get(source, i))


@njit
def _spread(source, target, i):
    store(target, 0, spread(source, i))


@njit
def _scratch(source):
    return scratch(5, source)


def every_bfloat16():
    """All 65,536 of them, the infinities and NaNs among them."""
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)


def between():
    """Each of them, and what lies a little below, at and above the middle to its neighbour."""
    bits = torch.arange(2**16, dtype=torch.int64)[:, None] << 16
    low = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    return (bits + low).flatten().to(torch.uint32).view(torch.float32)


def same_bits(a, b):
    """Equal as bits, NaN apart: any quiet NaN will do."""
    assert torch.equal(a.isnan(), b.isnan())
    kind = torch.int16 if a.dtype == torch.bfloat16 else torch.int32
    kept = ~a.isnan()
    assert torch.equal(a[kept].view(kind), b[kept].view(kind))


def test_reading_bfloat16_is_exact():
    source = every_bfloat16()
    target = torch.empty(len(source))
    _copy(_arrays.dense(source), target.numpy(), len(source) // LANES)
    same_bits(target, source.float())
    _copy_one_by_one(_arrays.dense(source), target.zero_().numpy(), len(source))
    same_bits(target, source.float())


def test_writing_bfloat16_rounds_to_nearest_even_and_keeps_nan():
    source = between()
    target = torch.zeros(len(source), dtype=torch.bfloat16)
    expected = source.to(torch.bfloat16)
    _copy(source.numpy(), _arrays.memory(target), len(source) // LANES)
    same_bits(target, expected)
    _copy_one_by_one(source.numpy(), _arrays.memory(target.zero_()), len(source))
    same_bits(target, expected)


@pytest.mark.parametrize("size", [0, 1, 5, 15, 16, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_part_reads_and_writes_no_more_than_itself(dtype, size):
    source = torch.arange(1, 40).to(dtype)
    target = torch.zeros(40, dtype=dtype)
    _copy_some(_arrays.dense(source), _arrays.memory(target), size)
    count = min(size, LANES)
    assert torch.equal(target[1 : 1 + count], source[1 : 1 + count])
    assert not target[0]
    assert not target[1 + count :].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_element_in_every_lane(dtype):
    source = torch.linspace(-3, 5, 9).to(dtype)
    target = torch.empty(LANES, dtype=torch.promote_types(dtype, torch.float32))
    _spread(_arrays.dense(source), target.numpy(), 7)
    assert torch.equal(target, source[7].to(target.dtype).expand(LANES))


def test_scratch_is_as_wide_as_the_arithmetic():
    assert _scratch(np.zeros(1, np.uint16)).dtype == np.float32
    assert _scratch(np.zeros(1, np.float32)).dtype == np.float32
    assert _scratch(np.zeros(1, np.float64)).dtype == np.float64
    assert _scratch(np.zeros(1, np.float32)).ctypes.data % 64 == 0


def test_a_slice_of_a_wider_tensor_is_read_where_it_lies():
    wider = torch.randn(2, 3, 8, dtype=torch.float32).bfloat16()
    part = wider[..., 2:6]
    array, strides = _arrays.flat(part)
    assert strides == (24, 8)
    bits = part.contiguous().view(torch.uint16)
    assert all(
        array[b * 24 + t * 8 + c] == bits[b, t, c] for b in range(2) for t in range(3) for c in range(4)
    )
    turned, strides = _arrays.flat(part.mT)
    assert strides == (12, 3)
    assert torch.equal(torch.from_numpy(turned).view(torch.bfloat16).view(2, 4, 3), part.mT)
    assert _arrays.flat(wider[:0])[0].size == 0

"""The linear map of int8 weights: every backend against its definition, rows of a table, and the rounding."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops._door import watching
from hippodrome.ops.quantized_linear import (
    BACKENDS,
    bytes_moved,
    flops,
    numba_,
    quantized_linear,
    quantized_rows,
    rounded,
    tiled_,
)
from hippodrome.ops.quantized_linear.examples import inputs
from hippodrome.testing._op_case import recording, slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS]
SIZES = [(2, 37, 21), (1, 1, 1), (4, 48, 16), (1, 15, 9), (8, 160, 7), (7, 64, 33)]


def exact(x, weight, scale, bias):
    y = x.double() @ (weight.double() * scale.double()[:, None]).T
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_values(backend, bias, sizes):
    for dtype, tolerance in ((torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)):
        arguments = inputs(*sizes, dtype=dtype, bias=bias)
        if dtype == torch.float64 and backend in ("numba", "tiled"):
            with pytest.raises(ValueError, match="float32 or bfloat16"):
                quantized_linear(*arguments, backend=backend)
            continue
        y = quantized_linear(*arguments, backend=backend)
        assert y.dtype == dtype
        close(y, exact(*arguments), tolerance, f"{backend} in {dtype}")


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(1, 2), max_size=3), i=st.integers(1, 150), o=st.integers(1, 40))
def test_any_shape(rows, i, o):
    _, weight, scale, bias = inputs(1, i, o, dtype=torch.float32)
    x = torch.randn(*rows, i)
    for backend in ("numba", "tiled"):
        y = quantized_linear(x, weight, scale, bias, backend=backend)
        close(y, exact(x, weight, scale, bias), SINGLE, backend)


def test_a_number_of_bfloat16_is_rounded_once_by_the_kernel():
    x, weight, scale, _ = inputs(3, 200, 40, dtype=torch.bfloat16, bias=False)
    y = quantized_linear(x, weight, scale, backend="numba")
    expected = exact(x, weight, scale, None)
    assert bool(((y.double() - expected).abs() <= expected.abs() * 2**-8 * 1.001 + 1e-6).all())


@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
@pytest.mark.parametrize("backend", NAMES)
def test_tensors_of_any_strides(lay, backend):
    x, weight, scale, bias = inputs(dtype=torch.float32)
    expected = exact(x, weight, scale, bias)
    y = quantized_linear(lay(x), weight, scale, lay(bias), backend=backend)
    close(y, expected, SINGLE, "x and bias")
    close(quantized_linear(lay(x), lay(weight), lay(scale), lay(bias)), expected, SINGLE, "all")


def test_large_weights_are_shared_by_threads_and_give_the_same_bits():
    arguments = inputs(2, 1030, 4100, dtype=torch.float32)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(quantized_linear(*arguments, backend="numba"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    close(seen[0], exact(*arguments), SINGLE, "numba")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_in_any_company(dtype):
    x, weight, scale, bias = inputs(8, 130, 50, dtype=dtype)
    together = quantized_linear(x, weight, scale, bias)
    alone = torch.cat([quantized_linear(row[None], weight, scale, bias) for row in x])
    close(together, alone, SINGLE if dtype == torch.float32 else HALF, "rows")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_join_and_bound_the_memory(dtype, monkeypatch):
    arguments = inputs(40, 64, 1000, dtype=dtype)
    whole = quantized_linear(*arguments, backend="tiled")
    monkeypatch.setattr(tiled_, "TILE", 64 * 4 * 77)
    seen, plain = [], tiled_.linear

    def noted(x, weight, *rest):
        seen.append(weight.nbytes)
        return plain(x, weight, *rest)

    monkeypatch.setattr(tiled_, "linear", noted)
    close(quantized_linear(*arguments, backend="tiled"), whole, SINGLE, "tiles")
    assert len(seen) > 6
    assert max(seen) <= tiled_.TILE


def test_gradients_go_through_pytorch():
    x, weight, scale, bias = inputs()
    leaves = [v.double().requires_grad_() for v in (x, scale, bias)]
    assert torch.autograd.gradcheck(lambda a, s, c: quantized_linear(a, weight, s, c), leaves)
    with pytest.raises(ValueError, match="has no gradient"):
        quantized_linear(x.float().requires_grad_(), weight, scale, backend="numba")
    with pytest.raises(ValueError, match="has no gradient"):
        quantized_linear(x.float().requires_grad_(), weight, scale, backend="tiled")


def test_what_runs_where():
    x, weight, scale, bias = inputs(dtype=torch.float32)
    many = torch.randn(40, 37)
    for arguments, name in (
        ((x, weight, scale, bias), "numba"),
        ((many, weight, scale, bias), "tiled"),
        ((x.clone().requires_grad_(), weight, scale, bias), "torch"),
        ((x.double(), weight, scale, None), "torch"),
    ):
        with watching() as choices:
            quantized_linear(*arguments)
        # The tiles ask the door of ops.linear in turn.
        assert [c.backend for c in choices if c.op == "quantized_linear"] == [name]
    for wrong, sentence in (
        ((many, weight, scale, bias), "1 to 8 rows"),
        ((x, weight.T.contiguous().T, scale, bias), "in order"),
        ((x, weight, scale.double(), None), "a float32 scale"),
        ((x, weight, scale, bias.bfloat16()), "bias must be"),
        ((x.to("meta"), weight, scale, bias), "runs on the CPU"),
    ):
        assert sentence in str(numba_.refusal(*wrong))
    with torch.autocast("cpu", torch.bfloat16):
        assert quantized_linear(x, weight, scale, bias).dtype == torch.bfloat16
    y = torch.func.vmap(quantized_linear, (0, None, None, None))(x, weight, scale, bias)
    close(y, exact(x, weight, scale, bias), SINGLE, "vmap")


def test_wrong_arguments_are_told():
    x, weight, scale, _ = inputs()
    door = getattr(quantized_linear, "__wrapped__", quantized_linear)
    for wrong, sentence in (
        ((x, weight.float(), scale), "in int8"),
        ((x, weight, scale[1:]), "scale"),
        ((x[:, 1:], weight, scale), r"x must be \(\.\.\., 37\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            door(*wrong)


def test_registration():
    x, weight, scale, bias = inputs(dtype=torch.float32)
    with recording() as calls, torch.no_grad():
        quantized_linear(x, weight, scale, bias)
        quantized_linear(torch.randn(9, 37), weight, scale, bias)
        quantized_rows(torch.tensor([3, 4]), weight, scale, torch.float32)
    ours = [call for call in calls.values() if "hippodrome" in str(call[0])]
    assert len(ours) == 3
    for operator, arguments, keywords in ours:
        torch.library.opcheck(operator, arguments, keywords)


@pytest.mark.compiled
def test_it_compiles_in_one_graph():
    arguments = inputs(dtype=torch.float32)
    found = torch.compile(quantized_linear, backend="eager", fullgraph=True)(*arguments)
    close(found, exact(*arguments), SINGLE, "compiled")


def test_nan_shows():
    for i in (0, 2, 3):
        arguments = inputs(dtype=torch.float32)
        arguments[i].view(-1)[0] = torch.nan
        for backend in ("numba", "tiled"):
            assert quantized_linear(*arguments, backend=backend).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ids", [[3], [[0, 20], [7, 7]], list(range(20)) * 3])
def test_rows_of_a_table(dtype, ids):
    _, weight, scale, _ = inputs()
    y = quantized_rows(torch.tensor(ids), weight, scale, dtype)
    table = (weight.float() * scale[:, None]).to(dtype) if dtype != torch.float64 else (
        weight.double() * scale.double()[:, None]
    )  # fmt: skip
    assert torch.equal(y, F.embedding(torch.tensor(ids), table))
    for wrong in (21, -1):
        with pytest.raises(IndexError):
            quantized_rows(torch.tensor([wrong]), weight, scale, dtype)


@settings(max_examples=25, deadline=None)
@given(o=st.integers(1, 6), i=st.integers(1, 30), size=st.floats(1e-30, 1e30), seed=st.integers(0, 99))
def test_rounding_is_to_the_nearest(o, i, size, seed):
    weight = torch.randn(o, i, generator=torch.Generator().manual_seed(seed)) * size
    q, scale = rounded(weight)
    assert q.dtype == torch.int8
    assert scale.dtype == torch.float32
    assert int(q.int().abs().max()) == 127
    off = (q.double() * scale.double()[:, None] - weight.double()).abs()
    assert bool((off <= scale.double()[:, None] * 0.50001).all())
    # What is rounded already stays what it is.
    again, same = rounded(q.float() * scale[:, None])
    assert torch.equal(again, q)
    close(same, scale, 1e-6, "scale")


def test_rounding_of_zeros_and_of_no_numbers():
    q, scale = rounded(torch.zeros(2, 3, 5))
    assert not q.any()
    assert not scale.any()
    assert scale.shape == (2, 3)
    for wrong in (torch.inf, torch.nan):
        with pytest.raises(ValueError, match="infinite or not a number"):
            rounded(torch.tensor([[1.0, wrong]]))


def test_counts():
    assert flops(3, 10, 7) == 3 * 7 * (2 * 10 + 1)
    assert bytes_moved(1, 768, 50280) == 768 * 50280 + 4 * 50280 + 4 * (768 + 50280)

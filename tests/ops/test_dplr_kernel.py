"""The kernel of S4: its contract, dense powers as oracle, truncated weights, digits in float32, memory."""

import math
from functools import partial

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.ops.dense_lti.torch_ import krylov
from hippodrome.ops.discretize import dense_bilinear
from hippodrome.ops.dplr_kernel import dense, dplr_kernel, numba_, torch_
from hippodrome.ops.dplr_kernel.examples import inputs
from hippodrome.testing.ops import CHECKS, check_float64, check_op, check_single_step, close


def examples(t, dtype=torch.float64, r=1):
    return inputs(r=r, length=t, dtype=dtype)


# At length 1 the kernel is -C~ A^-1 B, whatever dt: a gradient this check compares is rounding alone.
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_single_step], ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_contract(backend, check):
    check_op(dplr_kernel, [backend], examples, along_time=(), checks=[check])


@pytest.mark.parametrize("r", [0, 2, 3])
def test_contract_at_other_ranks(r):
    check_op(dplr_kernel, ["torch"], partial(examples, r=r), along_time=(), checks=[check_float64])


def system(measure, n, step, dtype=torch.float64):
    """One channel of a HiPPO system in its own half basis, and its exact discrete matrices."""
    poles, P, B = (x[None].to(dtype) for x in hippo.nplr(measure, n))
    poles = torch.stack([poles[..., 0].clamp_max(-1e-4), poles[..., 1]], -1)
    step = torch.tensor([step], dtype=dtype)
    Abar, Bbar = dense.bilinear(poles.double(), P.double(), P.double(), B.double(), step.double())
    return poles, P, B, step, Abar, Bbar


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("length", [1, 2, 3, 33, 128])
def test_random_output_weights_against_dense_powers(measure, length):
    poles, P, B, step, Abar, Bbar = system(measure, 16, 0.07)
    C = torch.randn(1, 8, 2, dtype=torch.float64)
    kernel = dplr_kernel(poles, P, P, B, dense.truncate(C, Abar, length), step, length)
    expected = dense.output(C) @ krylov(Abar, Bbar, length)[0]
    close(kernel, expected[0], 1e-9, measure)


def test_the_real_basis_is_the_complex_system():
    """Woodbury's one step against a solve, and both against the whole complex matrix."""
    poles, P, Q, B, C, step, _ = inputs(r=2)
    A = dense.matrix(poles, P, Q)
    expected = dense_bilinear(A, B.flatten(-2)[..., None], step)
    Abar, Bbar = dense.bilinear(poles, P, Q, B, step)
    close(Abar, expected[0], 1e-12, "Abar")
    close(Bbar, expected[1][..., 0], 1e-12, "Bbar")
    close(dense.pairs_of_output(dense.output(C)), C, 1e-15, "C")
    half = [torch.view_as_complex(x) for x in (poles, P, Q)]
    pole, column, row = (torch.cat([x, x.conj()], -1) for x in half)
    whole = torch.diag_embed(pole) - column.mT @ row.conj()
    for mine, theirs in zip(torch.linalg.eigvals(A), torch.linalg.eigvals(whole), strict=True):
        apart = (mine[:, None] - theirs[None]).abs()
        assert apart.min(0).values.max() < 1e-9 * theirs.abs().max()


def test_lengthening_is_truncating_at_twice_the_length():
    poles, P, B, step, Abar, _ = system("legs", 16, 0.01)
    C = torch.randn(1, 8, 2, dtype=torch.float64)
    short = dense.truncate(C, Abar, 50)
    long = dense.lengthen(short, Abar, 50)
    close(long, dense.truncate(C, Abar, 100), 1e-12, "twice")
    close(dense.untruncate(short, Abar, 50), C, 1e-9, "and back")
    kernels = [dplr_kernel(poles, P, P, B, c, step, n) for c, n in ((short, 50), (long, 100))]
    close(kernels[1][:, :50], kernels[0], 1e-11, "kernels of both lengths")


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("length", [257, 4096, 16384])
def test_float32_is_within_1e_4_of_float64(measure, size, length):
    """Random output weights at N = 64, relative to the largest value of the kernel."""
    poles, P, B, step, _, _ = system(measure, 64, size, torch.float32)
    Abar, Bbar = dense.bilinear(*(x.double() for x in (poles, P, P, B, step)))
    C = torch.randn(1, 32, 2, generator=torch.Generator().manual_seed(3))
    truncated = dense.truncate(C.double(), Abar, length)
    kernel = dplr_kernel(poles, P, P, B, truncated.float(), step, length)
    expected = dense.output(C.double()) @ krylov(Abar, Bbar, length)[0]
    close(kernel, expected[0], 1e-4, f"{measure}, dt = {size}, length {length}")


def test_a_long_kernel_holds_no_table_of_poles_and_nodes():
    """At N = 64 and 16384 values, what autograd keeps stays below one real table of one channel's modes."""
    arguments = inputs(d=16, n=32, length=16384, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in arguments[:-1]]
    kept, seen = 0, set()

    def pack(x):
        nonlocal kept
        storage = x.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept += storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kernel = dplr_kernel(*leaves, 16384)
    assert kept < 16 * 32 * 16384 * 8
    for gradient in torch.autograd.grad(kernel.square().sum(), leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", [numba_, torch_], ids=lambda b: b.NAME)
def test_blocks_of_channels_change_nothing(monkeypatch, backend):
    results = []
    for block in (1 << 18, 80):
        monkeypatch.setattr(backend, "BLOCK", block)
        results.append(with_gradients(backend.NAME, inputs(d=5)))
    for few, one in zip(*results, strict=True):
        close(few, one, 1e-12, "blocks")


def with_gradients(backend, arguments):
    """The kernel and the gradients of a function of it."""
    leaves = [x.detach().requires_grad_() for x in arguments[:-1]]
    kernel = dplr_kernel(*leaves, arguments[-1], backend=backend)
    weights = torch.linspace(-1, 1, kernel.numel(), dtype=torch.float64).view_as(kernel)
    return [kernel, *torch.autograd.grad((kernel * weights).sum(), leaves)]


@pytest.mark.parametrize(("d", "n", "length"), [(1, 1, 2), (2, 3, 31), (2, 3, 33), (3, 5, 1100)])
def test_numba_at_other_sizes(d, n, length):
    """Lengths around whole values of sixteen nodes, and more than one block of nodes."""
    arguments = inputs(d, n, length=length)
    for actual, expected in zip(
        with_gradients("numba", arguments), with_gradients("torch", arguments), strict=True
    ):
        close(actual, expected, 1e-9, f"length {length}")


def next_to_nodes():
    """FouT without damping: a real pole at 1e-8 next to the node 0, where 1 + Q^* R P is about 1e4."""
    poles, P, B, step, Abar, _ = system("fout", 16, 1e-4)
    C = torch.randn(1, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return poles, P, P, B, dense.truncate(C, Abar, 257), step, 257


def test_a_pole_next_to_a_node_keeps_its_digits_in_float32():
    """Also in the gradients, which are sums of what nearly cancels there too."""
    arguments = [x.float() if isinstance(x, torch.Tensor) else x for x in next_to_nodes()]
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in arguments]
    pairs = zip(with_gradients("numba", arguments), with_gradients("torch", wide), strict=True)
    for i, (actual, expected) in enumerate(pairs):
        close(actual, expected, 1e-5, f"result {i}")


def test_nodes_done_again_in_float64_are_like_the_others(monkeypatch):
    arguments = inputs(length=1100, dtype=torch.float32)
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in arguments]
    monkeypatch.setattr(numba_, "LARGE", 0.0)
    pairs = zip(with_gradients("numba", arguments), with_gradients("torch", wide), strict=True)
    for i, (actual, expected) in enumerate(pairs):
        close(actual, expected, 2e-5, f"result {i}")


def test_numba_refuses_other_ranks_and_torch_takes_them():
    arguments = inputs(r=2)
    with pytest.raises(ValueError, match="identity at rank 1, and P has rank 2"):
        dplr_kernel(*arguments, backend="numba")
    assert torch.equal(dplr_kernel(*arguments), dplr_kernel(*arguments, backend="torch"))


@pytest.mark.compiled
def test_compiles_whole():
    def run(*leaves):
        return dplr_kernel(*leaves, backend="numba")

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    results = []
    for form in (run, compiled):
        leaves = [x.requires_grad_() for x in inputs(dtype=torch.float32)[:-1]]
        kernel = form(*leaves, 41)
        results.append([kernel, *torch.autograd.grad(kernel.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-5, "compiled")


def test_a_kernel_of_no_length_is_refused():
    with pytest.raises(ValueError, match="at least one value; got length 0"):
        dplr_kernel(*inputs()[:-1], 0)
    assert math.isfinite(float(dplr_kernel(*inputs()[:-1], 1)[0, 0]))

"""The Cauchy product: its contract, blocks of nodes, poles that lie next to a node."""

import math

import pytest
import torch

from hippodrome.ops.cauchy import BACKENDS, cauchy, torch_
from hippodrome.ops.cauchy.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op, close, names

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]


def examples(t, dtype=torch.float64):
    return inputs(l=t, dtype=dtype)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, check):
    check_op(cauchy, [backend], examples, along_time=(), checks=[check])


@pytest.mark.parametrize(("d", "q", "n", "length"), [(1, 1, 1, 1), (2, 9, 3, 33), (5, 4, 32, 700)])
@pytest.mark.parametrize("backend", FAST)
def test_other_sizes(backend, d, q, n, length):
    results = []
    for chosen in (backend, "reference"):
        v, w, poles = (x.requires_grad_() for x in inputs(d, q, n, length))
        y = cauchy(v, w, poles, backend=chosen)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append([y, *torch.autograd.grad((weights * y).sum(), [v, poles])])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-10, backend)


def test_blocks_of_nodes_change_nothing(monkeypatch):
    results = []
    for block in (1 << 20, 15 * 7):
        monkeypatch.setattr(torch_, "BLOCK", block)
        leaves = [x.requires_grad_() for x in inputs()]
        y = cauchy(*leaves, backend="torch")
        results.append([y, *torch.autograd.grad(y.cos().sum(), leaves)])
    for few, one in zip(*results, strict=True):
        close(few, one, 1e-13, "blocks")


@pytest.mark.parametrize("backend", FAST)
def test_a_pole_next_to_a_node_keeps_its_digits_in_float32(backend):
    """At 1000, float32 is spaced by 6e-5: a distance of 1e-3 alone would be wrong in its second digit."""
    w = torch.tensor([1000.0 + 1.234567e-3, 1000.0], dtype=torch.float64)
    poles = torch.tensor([[[-1e-4, 1000.0]]], dtype=torch.float64)
    v = torch.ones(1, 1, 1, 2)
    expected = cauchy(v.double(), w, poles, backend="reference")
    close(cauchy(v, w, poles, backend=backend), expected, 1e-5, backend)


@pytest.mark.parametrize("backend", NAMES)
def test_one_pair_by_hand(backend):
    """1 / (s + 1 - i) + 1 / (s + 1 + i) = 2 (s + 1) / ((s + 1)^2 + 1) at s = 2i."""
    v = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    poles = torch.tensor([[[-1.0, 1.0]]], dtype=torch.float64)
    s = 2j
    expected = 2 * (s + 1) / ((s + 1) ** 2 + 1)
    got = cauchy(v, torch.tensor([2.0], dtype=torch.float64), poles, backend=backend)[0, 0, 0].tolist()
    assert math.isclose(got[0], expected.real, rel_tol=1e-14)
    assert math.isclose(got[1], expected.imag, rel_tol=1e-14)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_compiles_whole(backend):
    def run(v, w, poles):
        return cauchy(v, w, poles, backend=backend)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    results = []
    for form in (run, compiled):
        v, w, poles = (x.requires_grad_() for x in inputs(dtype=torch.float32))
        y = form(v, w, poles)
        results.append([y, *torch.autograd.grad(y.square().sum(), [v, poles])])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-5, backend)

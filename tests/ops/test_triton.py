"""What the doors to Triton kernels share: refusals, the self-check, the checks of kernels."""

import subprocess
import sys
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.testing import triton_


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of an unknown capability, as far as the self-check looks at one; no verdicts yet."""
    monkeypatch.setattr(_triton, "_VERDICTS", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (12, 1))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


def test_a_cpu_tensor_is_refused_and_nothing_heavy_imported() -> None:
    code = (
        "import torch, sys\nfrom hippodrome.ops import _triton\nbefore = set(sys.modules)\n"
        "assert 'CUDA' in _triton.refusal(torch.ones(2), None)\n"
        "assert not any(m.split('.')[0] in ('triton', 'numba') for m in set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_refusals_are_sentences_about_devices_and_dtypes() -> None:
    meta = torch.ones(2, device="meta")
    assert "meta" in str(_triton.refusal(meta))
    assert _triton.device_index(None, torch.ones(2)) == _triton.INTERPRETER


def test_a_check_that_passes_runs_once(gpu: None) -> None:
    ran = []
    for _ in range(3):
        assert _triton.trusted("op", 0, ran.append) is None
    assert _triton.trusted("op", 1, ran.append) is None
    assert [str(device) for device in ran] == ["cuda:0", "cuda:1"]


def test_a_check_that_fails_warns_once_and_refuses_from_then_on(gpu: None) -> None:
    def broken(device: torch.device) -> None:
        raise ArithmeticError("output 0 is off by 1.0e+00")

    with pytest.warns(UserWarning, match=r"op failed their self-check on cuda:0 .*off by.*torch backend"):
        sentence = _triton.trusted("op", 0, broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _triton.trusted("op", 0, broken) == sentence


def test_a_check_that_asks_again_is_not_started_again(gpu: None) -> None:
    asked = []

    def check(device: torch.device) -> None:
        asked.append(_triton.trusted("op", 0, check))

    assert _triton.trusted("op", 0, check) is None
    assert asked == [None]


def test_the_callers_surroundings_do_not_reach_a_check(gpu: None) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    def check(device: torch.device) -> None:
        x = torch.ones(3, requires_grad=True)
        y = x @ x
        assert type(y) is Tensor
        assert y.dtype == torch.float32
        assert torch.equal(torch.autograd.grad(y, x)[0], 2 * x.detach())

    with FakeTensorMode(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert _triton.trusted("op", 0, check) is None


def test_no_check_within_a_backward_pass(gpu: None) -> None:
    answers = []

    class Doubling(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            answers.append(_triton.trusted("op", 0, lambda device: None))
            return 2 * grad

    x = torch.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="a backward pass"):
        Doubling.apply(x).sum().backward()
    assert "Call the op once before" in str(answers[0])
    assert _triton.trusted("op", 0, lambda device: None) is None


def test_no_check_while_a_graph_is_captured(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "_capturing", lambda: True)
    with pytest.warns(UserWarning, match="the capture of a CUDA graph"):
        assert "torch backend" in str(_triton.trusted("op", 0, lambda device: None))


def test_agreement_is_to_the_tolerance_in_values_and_gradients() -> None:
    x, device = torch.linspace(0.1, 1.0, 7), torch.device("cpu")
    _triton.agree(lambda x, y: (x * x,), lambda x, y: (x**2,), (x, None), device)
    with pytest.raises(ArithmeticError, match="output 0"):
        _triton.agree(lambda x: (1.001 * x * x,), lambda x: (x**2,), (x,), device)
    with pytest.raises(ArithmeticError, match="gradient to argument 0"):
        _triton.agree(lambda x: (x * x.detach(),), lambda x: (x**2,), (x,), device)
    with pytest.raises(ArithmeticError, match="output 0 is off by nan"):
        _triton.agree(lambda x: (x * torch.nan,), lambda x: (x**2,), (x,), device)


@pytest.mark.compiled
def test_a_refusal_is_asked_without_a_break(gpu: None) -> None:
    def check(device: torch.device) -> None:
        y = torch.ones(2, requires_grad=True)
        torch.autograd.grad((y * y).sum(), y)

    def run(x: Tensor) -> Tensor:
        if _triton.refusal(x) is None or _triton.trusted("op", 0, check) is not None:
            return x
        return 2 * x

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), 2 * torch.ones(2))
    exported = torch.export.export(torch.nn.Identity(), (torch.ones(2),))
    assert torch.equal(exported.module()(torch.ones(2)), torch.ones(2))


@pytest.mark.cubin
def test_kernels_compile_for_every_architecture_without_a_gpu() -> None:
    if not triton_.can_compile():
        pytest.skip("Triton is not installed here, or set to interpret kernels")
    from tests.ops import _doubling_kernel as kernel

    x = torch.ones(100)
    built = triton_.check_compiles(lambda: kernel.double[(1,)](x, torch.empty_like(x), 100, 128))
    assert [cubin.capability for cubin in built] == [80, 90, 100]
    assert all(cubin.registers > 0 and cubin.spilled == 0 and cubin.code for cubin in built)


@pytest.mark.triton
def test_kernels_run_where_triton_says() -> None:
    where = triton_.device()
    if where is None:
        pytest.skip("Triton is not installed here, or has no GPU and is not set to interpret kernels")
    from tests.ops import _doubling_kernel as kernel

    x = torch.arange(100.0, device=where)
    y = torch.empty_like(x)
    assert _triton.refusal(x) is None
    kernel.double[(1,)](x, y, 100, 128)
    assert torch.equal(y, 2 * x)

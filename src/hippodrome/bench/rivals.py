"""The rivals' side of each row: their scan or convolution, and around it what makes the work equal to ours.

Each takes its inputs in the layout it likes best, so that no transposition is counted against it.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.mixers._lti import System
from hippodrome.shapes import SeriesBatch

PACKAGES = {
    "accelerated-scan": ("accelerated_scan", "pip install accelerated-scan"),
    "mambapy": ("mambapy", "pip install mambapy"),
    "s5-pytorch": ("s5", "pip install s5-pytorch"),
    "transformers": ("transformers", "pip install transformers"),
    "mamba-ssm": ("mamba_ssm", "pip install mamba-ssm --no-build-isolation, on a machine with nvcc"),
    "flash-linear-attention": ("fla", "pip install fla-core einops"),
    "neuralforecast": ("neuralforecast", "pip install neuralforecast"),
}
"""Each rival's package: the module it is imported as, and how to get it."""


def have(package: str) -> bool:
    """Whether a rival's package is installed; it is not imported for that."""
    return find_spec(PACKAGES[package][0]) is not None


def absent(packages: Sequence[str]) -> list[str]:
    """A sentence for each of these packages that is not installed."""
    return [f"{p} is not installed, so it is left out ({PACKAGES[p][1]})" for p in packages if not have(p)]


def eager_selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan around ``accelerated_scan.ref.scan``; u, dt and y (b, d, t), B and C (b, n, t)."""
    from accelerated_scan.ref import scan

    b, d, t = u.shape
    a = torch.exp(dt[:, :, None] * A[None, :, :, None])
    x = (dt * u)[:, :, None] * B[:, None]
    h = scan(a.reshape(b, -1, t), x.reshape(b, -1, t)).view(b, d, -1, t)
    return (h * C[:, None]).sum(2) + D[:, None] * u


def mambapy_selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan around ``mambapy.pscan``; u and dt (b, t, d), B and C (b, t, n), y (b, t, d)."""
    from mambapy.pscan import pscan

    a = torch.exp(dt[..., None] * A)
    x = (dt * u)[..., None] * B[:, :, None]
    return (pscan(a, x) @ C[..., None]).squeeze(3) + D * u


def fft_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution by the convolution theorem; u (b, d, t), kernel (d, t)."""
    t = u.shape[-1]
    size = 2 * t
    return torch.fft.irfft(torch.fft.rfft(u, n=size) * torch.fft.rfft(kernel, n=size), n=size)[..., :t]


def textbook_s4d(
    u: Tensor, log_decay: Tensor, frequency: Tensor, weight: Tensor, log_dt: Tensor, D: Tensor
) -> Tensor:
    """S4D as its paper's listing has it (Gu, Gupta, Goel, Re 2022, arXiv 2206.11893): kernel, then FFT.

    u (b, d, t); A = -exp(log_decay) + i frequency, (d, n); weight (d, n) complex holds C B; log_dt (d).
    """
    A = torch.complex(-torch.exp(log_decay), frequency)
    step = torch.exp(log_dt)[:, None]
    discrete = A * step
    scale = weight * (torch.exp(discrete) - 1) / A
    powers = torch.exp(discrete[..., None] * torch.arange(u.shape[-1], device=u.device))
    kernel = torch.einsum("dn,dnt->dt", scale, powers).real
    return fft_convolution(u, kernel) + D[:, None] * u


def public_s5(system: System, step: Tensor) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The public S5 package's layer with the parameters of a system of ours, and its own; (b, t, d) to that.

    It keeps the complex modes it is given and takes the real part, as we do, so a factor 2 is in our C.
    """
    from s5 import S5

    n, d = system.B.shape[:2]
    layer = S5(d, state_width=n)
    inner = layer.seq
    found = {
        "Lambda": torch.view_as_complex(system.A.contiguous()),
        "B": system.B,
        "C": torch.view_as_complex(system.C.contiguous()),
        "D": system.D,
        "log_step": step.log(),
    }
    for name, value in found.items():
        parameter = getattr(inner, name)
        parameter.data = value.detach().clone().view_as(parameter)
    return layer, list(layer.parameters())


def transformers_ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, chunk: int = 64
) -> Tensor:
    """The chunked form that transformers runs on a CPU; layouts as ours."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    return mamba2_chunk_scan(x, dt, A, B, C, chunk, D=D).to(x.dtype)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution by ``F.conv1d``; x (b, d, t), weight (d, w)."""
    taps = weight.shape[1]
    return F.conv1d(x, weight[:, None], bias, padding=taps - 1, groups=x.shape[1])[..., : x.shape[2]]


def unrolled_shifts(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution as a sum of shifted copies; x (b, t, d), weight (d, w)."""
    t, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    y = bias + padded[:, :t] * weight[:, 0]
    for i in range(1, taps):
        y = y + padded[:, i : i + t] * weight[:, i]
    return y


def plain_gated_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """The gate, then the norm, in float32, as each of them is usually written in PyTorch."""
    wide = y.float() * F.silu(z.float())
    return (weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps))).to(y.dtype)


def mamba_ssm_selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The CUDA kernel of ``mamba_ssm``; u and dt (b, d, t), B and C (b, n, t)."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, dt, A, B, C, D)


def mamba_ssm_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The Triton kernels of ``mamba_ssm`` at the chunk of 256 that it ships with; layouts as ours."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return mamba_chunk_scan_combined(x, dt, A, B, C, 256, D=D)


def fla_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """SSD as the linear attention with a decay for each head that ``flash-linear-attention`` has."""
    from fla.ops.simple_gla import chunk_simple_gla

    heads = x.shape[2]
    q, k = (m.expand(-1, -1, heads, -1).contiguous() for m in (C, B))
    decay = dt.float() * A
    y, _ = chunk_simple_gla(q, k, (x * dt[..., None]).to(x.dtype), g=decay, scale=1.0)
    return y + D[:, None].to(x.dtype) * x


def fla_naive_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The same in the plain PyTorch of ``flash-linear-attention``, chunk 64, which a CPU can run."""
    from fla.ops.simple_gla.naive import naive_chunk_simple_gla

    heads = x.shape[2]
    q, k = (m.expand(-1, -1, heads, -1) for m in (C, B))
    y, _ = naive_chunk_simple_gla(q, k, x * dt[..., None], dt * A, chunk_size=64, scale=1.0)
    return y + D[:, None] * x


def fla_naive_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """The gated delta rule in the plain PyTorch of ``flash-linear-attention``, chunk 64; layouts as ours."""
    from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule

    return naive_chunk_gated_delta_rule(q, k, v, log_decay, beta, chunk_size=64, scale=1.0)[0]


NEURALFORECAST = ("PatchTST", "iTransformer", "DLinear")
"""Models of neuralforecast that stand beside ours."""


def neuralforecast(name: str, batch: SeriesBatch) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a forecast of a model of neuralforecast at its default sizes, on our windows.

    Its univariate models get each variate as a window. The step is its forward pass, the squared error and
    its default optimizer; what its trainer does around a step is left out.
    """
    from neuralforecast import models

    window = {"h": batch.future.shape[1], "input_size": batch.past.shape[1]}
    kind = getattr(models, name)
    model = kind(**window, n_series=batch.past.shape[2]) if kind.MULTIVARIATE else kind(**window)
    past, future = batch.past, batch.future
    if not kind.MULTIVARIATE:
        past, future = (part.mT.flatten(0, 1)[..., None].contiguous() for part in (past, future))
    windows: dict[str, Tensor | None] = {"insample_y": past, "insample_mask": torch.ones_like(past)}
    windows |= dict.fromkeys(("hist_exog", "futr_exog", "stat_exog"))
    optimizer = model.configure_optimizers()["optimizer"]

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        F.mse_loss(model(windows), future).backward()
        optimizer.step()

    def forecast() -> None:
        model.eval()
        with torch.no_grad():
            model(windows)

    return step, forecast

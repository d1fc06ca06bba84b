"""What a mixer does to an impulse, and the eigenvalues of its recurrence: what `inspect` draws."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.mixers.base import Mixer


@torch.no_grad()
def impulse_response(mixer: Mixer, length: int = 256, *, scale: float | int = 1.0) -> Tensor:
    """Outputs (length, d) after an impulse of ``scale`` in every channel at the first token, less silence.

    For a linear time-invariant mixer this is its kernel summed over the inputs. Any other mixer answers as
    it would at that size of input from its fresh state: a look at one working point, not a kernel.
    """
    parameter = next(mixer.parameters())
    x = torch.zeros(2, length, mixer.d_model, device=parameter.device, dtype=parameter.dtype)
    x[1, 0] = scale
    training = mixer.training
    mixer.eval()
    try:
        y, _ = mixer(x)
    finally:
        mixer.train(training)
    return y[1] - y[0]


def spectrum(mixer: Mixer, *, seed: int = 0) -> Tensor | None:
    """Eigenvalues (m, 2) of the state's transition in one step at a random input, real and imaginary part.

    Read off the derivative of the next state with respect to the state, one tensor of the state at a time,
    for states whose transition is elementwise (every diagonal recurrence). A state whose entries mix
    answers with the eigenvalues of the whole Jacobian if it has at most 1024 entries, and not at all if it
    has more. None where no state is carried by a derivative (an attention cache), or where there is no step.
    """
    if not mixer.causal:
        return None
    parameter = next(mixer.parameters())
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1, mixer.d_model, generator=g).to(parameter)
    fresh = mixer.init_state(1, 8)
    training = mixer.training
    mixer.eval()
    try:
        found = [_eigenvalues(mixer, x, fresh, i) for i in range(len(fresh))]
    finally:
        mixer.train(training)
    kept = [e for e in found if e is not None]
    return torch.cat(kept) if kept else None


def _eigenvalues(mixer: Mixer, x: Tensor, fresh: tuple, index: int) -> Tensor | None:
    part = fresh[index]
    if not part.is_floating_point() or part.numel() == 0:
        return None
    probe = part.detach().clone().requires_grad_()

    def after(value: Tensor) -> Tensor:
        state = type(fresh)(*(value if i == index else old for i, old in enumerate(fresh)))
        return mixer.step(x, state)[1][index]

    if part.numel() <= 1024:
        jacobian = torch.autograd.functional.jacobian(after, probe)
        square = jacobian.reshape(part.numel(), part.numel()).double()
        values = torch.linalg.eigvals(square)
        # A shift register (the taps of a convolution) is nilpotent: it forgets on its own and says nothing
        # here.
        if not bool((values.abs() > 1e-6).any()):
            return None
        return torch.view_as_real(values).float()
    return _diagonal(after, probe)


def _diagonal(after: Any, probe: Tensor) -> Tensor | None:
    """Eigenvalues of an elementwise transition, real or in pairs, checked with random signs."""
    g = torch.Generator().manual_seed(0)
    signs = (torch.randint(0, 2, probe.shape, generator=g) * 2 - 1).to(probe)
    out = after(probe)
    if not out.requires_grad:
        return None
    (plain,) = torch.autograd.grad(out.sum(), probe, retain_graph=True)
    (signed,) = torch.autograd.grad((out * signs).sum(), probe, retain_graph=True)
    if torch.allclose(signed, plain * signs, atol=1e-6):
        values = plain.flatten()
        return (
            torch.stack([values, torch.zeros_like(values)], -1) if bool((values.abs() > 1e-6).any()) else None
        )
    if probe.shape[-1] != 2:
        return None
    mask = torch.zeros_like(out)
    mask[..., 0] = 1
    (first,) = torch.autograd.grad((out * mask).sum(), probe, retain_graph=True)
    pairs = signs[..., :1]
    (mixed,) = torch.autograd.grad((out * mask * pairs).sum(), probe)
    if not torch.allclose(mixed, first * pairs, atol=1e-6):  # the pairs mix, as with a matrix of low rank
        return None
    # d re'/d re = Re a and d re'/d im = -Im a.
    return torch.stack([first[..., 0], -first[..., 1]], -1).reshape(-1, 2)

"""A linear time-invariant system in discrete time: its two forms, its kernel and its frequency response.

x_k = A x_{k-1} + B u_k, y_k = C x_k + D u_k: the output sees the input of its own step, as in the mixers.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops import _pairs


class StateSpace(NamedTuple):
    """Real matrices in float64; axes before the last two number systems that run side by side."""

    A: Float[Tensor, "*systems n n"]
    B: Float[Tensor, "*systems n m"]
    C: Float[Tensor, "*systems p n"]
    D: Float[Tensor, "*systems p m"]

    def dense(self) -> "StateSpace":
        """Itself."""
        return self

    def poles(self) -> Float[Tensor, "*systems n 2"]:
        """The eigenvalues of A, as pairs."""
        return torch.view_as_real(torch.linalg.eigvals(self.A))

    def kernel(self, length: int) -> Float[Tensor, "*systems length p m"]:
        """The answer to an impulse: C A^k B, with D added at k = 0."""
        states, power = self.B[..., None, :, :], self.A
        while states.shape[-3] < length:
            more = power[..., None, :, :] @ states
            states, power = torch.cat([states, more], -3), power @ power
        out = self.C[..., None, :, :] @ states[..., :length, :, :]
        return _add_first(out, self.D)

    def response(self, omega: Float[Tensor, "f"]) -> Float[Tensor, "*systems f p m 2"]:
        """G(e^{i omega}) = C (1 - A e^{-i omega})^{-1} B + D as pairs; omega in radians a step."""
        turn = torch.exp(-1j * omega.double())[:, None, None]
        A, B, C, D = (part[..., None, :, :].to(torch.complex128) for part in self)
        eye = torch.eye(A.shape[-1], dtype=A.dtype)
        inner = torch.linalg.solve(eye - turn * A, B.expand(*B.shape[:-3], len(omega), *B.shape[-2:]))
        return torch.view_as_real(C @ inner + D)

    def run(self, u: Float[Tensor, "t m"]) -> Float[Tensor, "*systems t p"]:
        """The output from rest for one input that every system is given."""
        x = self.B.new_zeros(self.B.shape[:-1])
        outputs = []
        for u_t in u:
            x = (self.A @ x[..., None])[..., 0] + self.B @ u_t
            outputs.append((self.C @ x[..., None])[..., 0] + self.D @ u_t)
        return torch.stack(outputs, -2)


class Modal(NamedTuple):
    """A diagonal system, complex numbers as pairs in float64: A = exp(log_a), the output is Re C x + D u."""

    log_a: Float[Tensor, "*systems n 2"]
    B: Float[Tensor, "*systems n m 2"]
    C: Float[Tensor, "*systems p n 2"]
    D: Float[Tensor, "*systems p m"]

    def dense(self) -> StateSpace:
        """The same system with real matrices over the real parts of x, then its imaginary parts."""
        re, im = (torch.diag_embed(part) for part in _pairs.exp(self.log_a).unbind(-1))
        A = torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)
        B = torch.cat(self.B.unbind(-1), -2)
        return StateSpace(A, B, torch.cat([self.C[..., 0], -self.C[..., 1]], -1), self.D)

    def poles(self) -> Float[Tensor, "*systems n 2"]:
        """One step's factor of every mode; where an imaginary part is not 0, its conjugate is a pole too."""
        return _pairs.exp(self.log_a)

    def kernel(self, length: int) -> Float[Tensor, "*systems length p m"]:
        """The answer to an impulse: Re C A^k B, with D added at k = 0."""
        times = torch.arange(length, dtype=self.log_a.dtype)
        powers = torch.view_as_complex(_pairs.exp(times[:, None, None] * self.log_a[..., None, :, :]))
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        out = (C[..., None, :, :] * powers[..., None, :]) @ B[..., None, :, :]
        return _add_first(out.real, self.D)

    def response(self, omega: Float[Tensor, "f"]) -> Float[Tensor, "*systems f p m 2"]:
        """G(e^{i omega}) as pairs; the real part of the output joins every mode with its conjugate."""
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        flip = torch.tensor([1.0, -1.0], dtype=self.log_a.dtype)
        total = self.D[..., None, :, :].to(C.dtype)
        for log_a, write, read in ((self.log_a, B, C), (self.log_a * flip, B.conj(), C.conj())):
            shift = torch.stack([torch.zeros_like(omega), omega], -1).to(log_a)[:, None, :]
            # 1 - exp(log a - i omega) without cancellation near a slow pole.
            below = -torch.view_as_complex(_pairs.expm1(log_a[..., None, :, :] - shift))
            total = total + 0.5 * (read[..., None, :, :] / below[..., None, :]) @ write[..., None, :, :]
        return torch.view_as_real(total)


System = StateSpace | Modal


def _add_first(kernel: Tensor, D: Tensor) -> Tensor:
    first = kernel[..., :1, :, :] + D[..., None, :, :]
    return torch.cat([first, kernel[..., 1:, :, :]], -3)


def continuous_response(
    A: Float[Tensor, "n n"],
    B: Float[Tensor, "n m"],
    C: Float[Tensor, "p n"] | None,
    omega: Float[Tensor, "f"],
    D: Float[Tensor, "p m"] | None = None,
) -> Float[Tensor, "f p m 2"]:
    """G(i omega) = C (i omega - A)^{-1} B + D of x' = A x + B u, as pairs; the state where C is None."""
    eye = torch.eye(A.shape[-1], dtype=torch.complex128)
    below = 1j * omega.double()[:, None, None] * eye - A.to(eye.dtype)
    out = torch.linalg.solve(below, B.to(eye.dtype).expand(len(omega), *B.shape))
    out = out if C is None else C.to(eye.dtype) @ out
    return torch.view_as_real((out if D is None else out + D).contiguous())


def response_of_kernel(kernel: Float[Tensor, "length *rest"]) -> Float[Tensor, "f *rest 2"]:
    """The frequency response of a kernel that has died out by its end: its Fourier transform.

    At the frequencies ``frequencies_of(length)``. What the kernel does after ``length`` is missing.
    """
    return torch.view_as_real(torch.fft.rfft(kernel.double(), dim=0))


def frequencies_of(length: int) -> Float[Tensor, "f"]:
    """2 pi k / length up to pi: where ``response_of_kernel`` stands, in radians a step."""
    return 2 * torch.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length


class Bode(NamedTuple):
    """A frequency response as engineers read it."""

    decibels: Float[Tensor, "*shape"]
    degrees: Float[Tensor, "*shape"]


def bode(response: Float[Tensor, "f *rest 2"]) -> Bode:
    """20 log10 of the modulus, and the angle unwrapped along the first axis (frequency), in degrees."""
    size = response.norm(dim=-1)
    angle = torch.atan2(response[..., 1], response[..., 0])
    jumps = torch.round(angle.diff(dim=0) / (2 * torch.pi)).cumsum(0)
    angle = angle - 2 * torch.pi * torch.cat([torch.zeros_like(angle[:1]), jumps])
    return Bode(20 * torch.log10(size.clamp_min(1e-300)), torch.rad2deg(angle))

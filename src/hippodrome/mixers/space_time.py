"""SpaceTime: a bank of companion-matrix systems, born discrete, that can run on by predicting their input."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.mixers.base import Mixer
from hippodrome.ops.companion_kernel import companion_kernel
from hippodrome.ops.dense_lti import dense_lti
from hippodrome.ops.diagonal_lti.torch_ import toeplitz
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

SMALLEST = 1e-4
"""Weights of a smaller sum are left as they are."""


class SpaceTimeState(NamedTuple):
    """The state of the bank."""

    x: Float[Tensor, "b d n"]
    """Real, in float32 or wider."""


class Companion(NamedTuple):
    """A = S + a e_n^T with S ones below the diagonal, the input column, the output row, the row of inputs."""

    a: Float[Tensor, "h n"]
    b: Float[Tensor, "h n"]
    c: Float[Tensor, "h n"]
    k: Float[Tensor, "h n"] | None

    def matrix(self) -> Float[Tensor, "h n n"]:
        """A, dense."""
        n = self.a.shape[1]
        shift = torch.diag_embed(torch.ones_like(self.a[:, 1:]), -1)
        return torch.cat([shift[..., : n - 1], shift[..., n - 1 :] + self.a[..., None]], -1)


class SpaceTime(Mixer):
    """x_t = A x_{t-1} + b u_t, y_t = c x_t + D u_t with companion A for each channel; then y + W gelu(y).

    Zhang, Saab, Poli, Dao, Goel, Ré 2023, "Effectively modeling time series with simple discrete state
    spaces", arXiv 2303.09489, section 3, equations of the companion and of the closed-loop system.
    A = S + a e_n^T shifts down and feeds its last entry back through a. With a = 0 and b = e_1 the state is
    the last n inputs and c an autoregression. The system is born discrete: ``dt`` means nothing.

    With ``feedback`` there is another row k, which predicts the next input from the state, and no skip D:
    ``closed_loop`` then runs the system on without any input, x <- (A + b k^T) x.

    a, b, c and k are divided by the sum of their sizes (norm one over the state), which keeps all powers of A
    bounded: its columns sum to at most one in size. The published code differs: its open-loop layers divide a
    alone, and its closed loop divides the rows of the whole matrix A + b k^T, which then is no companion with
    a feedback any more. Weights whose sum is below 1e-4 are left as they are, as there. Such weights cannot
    express every autoregression: the coefficients of one with several poles near the unit circle have a sum
    of sizes far above one. Without ``normalize`` the weights only start at sum one and are free from there.

    Inside the boundary of this mixer is the published block less its residual and dropout: the system with
    its skip, which starts at one, then GELU and a linear map inside a residual of their own.

    Args:
        d_model: channels in and out.
        kernel_dim: size n of each state.
        n_kernels: systems; each serves d_model / n_kernels channels in a row. None takes one a channel.
        normalize: divide the weights by their sums whenever they are used; without it they start there, and
            nothing keeps the system stable in training.
        feedback: learn to predict the next input, and leave the skip out.
        linear: whether GELU and the linear map follow; without them the mixer is the system and its skip.

    Raises:
        ValueError: a size below 1, or systems that do not divide the channels.
    """

    mixes_channels = True
    reversed_from = "offset"

    def __init__(
        self,
        d_model: int,
        kernel_dim: int = 64,
        n_kernels: int | None = None,
        normalize: bool = True,
        feedback: bool = False,
        linear: bool = True,
    ) -> None:
        super().__init__()
        n_kernels = d_model if n_kernels is None else n_kernels
        if kernel_dim < 1 or n_kernels < 1 or d_model % n_kernels:
            raise ValueError(
                f"SpaceTime's systems have 1 state or more, and each serves equally many channels, so "
                f"n_kernels must divide d_model; got kernel_dim {kernel_dim}, n_kernels {n_kernels} and "
                f"d_model {d_model}. Take n_kernels 1, or d_model itself."
            )
        self.d_model, self.normalize = d_model, normalize
        self.a, self.b, self.c, k = (
            nn.Parameter(x.clone() if normalize else _scaled(x))
            for x in torch.randn(4, n_kernels, kernel_dim)
        )
        self.k = k if feedback else None
        self.D = None if feedback else nn.Parameter(torch.ones(d_model))
        self.linear = Projection(d_model, d_model) if linear else None

    def system(self, dtype: torch.dtype | None = None) -> Companion:
        """The weights of every system as they enter it, in ``dtype``; float32 or wider when None."""
        dtype = torch.promote_types(self.a.dtype, torch.float32) if dtype is None else dtype
        parts = [None if x is None else x.to(dtype) for x in (self.a, self.b, self.c, self.k)]
        a, b, c, k = ((_scaled(x) if self.normalize and x is not None else x) for x in parts)
        return Companion(a, b, c, k)  # type: ignore[arg-type]  # only k can be missing

    def _each(self, x: Tensor) -> Tensor:
        """What is there once a system, once a channel."""
        return x.repeat_interleave(self.d_model // self.a.shape[0], 0)

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the system is, without D: its first ``length`` values."""
        a, b, c, _ = self.system()
        return self._each(companion_kernel(a, b, c[:, None], length)[:, 0])

    def init_state(self, batch: int, max_length: int | None = None) -> SpaceTimeState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.a.dtype, torch.float32)
        return SpaceTimeState(self.a.new_zeros(batch, self.d_model, self.a.shape[1], dtype=wide))

    def step(
        self, x_t: Token, state: SpaceTimeState, *, dt_t: Tensor | None = None
    ) -> tuple[Token, SpaceTimeState]:
        """One token: shift the state down, feed its last entry back, take the input in, read."""
        self.refuse_dt(dt_t)
        with torch.autocast(x_t.device.type, enabled=False):
            a, b, c = (self._each(x) for x in self.system()[:3])
            u = x_t.to(state.x.dtype)
            down = F.pad(state.x[..., :-1], (1, 0))
            x = down + a * state.x[..., -1:] + b * u[..., None]
            y = (c * x).sum(-1)
            y = y if self.D is None else y + self.D.to(y.dtype) * u
        return self.readout(y.to(x_t.dtype)), SpaceTimeState(x)

    def forward(
        self,
        x: Sequence,
        state: SpaceTimeState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, SpaceTimeState]:
        """Many tokens: by the kernel from rest; with a state or resets by the dense form in chunks."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(torch.promote_types(self.a.dtype, torch.float32))
            if state is None and resets is None:
                y, last = self._from_rest(u)
            else:
                one = self.system(torch.float64)
                A, b, c = (self._each(part) for part in (one.matrix(), one.b, one.c))
                before = None if state is None else state.x
                y, last = dense_lti(u, A, b, c[:, None], before, resets)
                y = y[..., 0]
            y = y if self.D is None else y + self.D.to(y.dtype) * u
        return self.readout(y.to(x.dtype)), SpaceTimeState(last)

    def _from_rest(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs without D, and the last state, which holds a sum of the last inputs and fed-back entries.

        x_t[i] = sum_{j <= i} b_{i-j} u_{t-j} + a_{i-j} w_{t-1-j}, where w_t = x_t[n-1] is a convolution too.
        """
        a, b, c, _ = self.system()
        n = a.shape[1]
        last = torch.zeros_like(c)
        last[:, -1] = 1.0
        kernels = companion_kernel(a, b, torch.stack([c, last], 1), u.shape[1])
        y, w = (fft_conv(u, self._each(kernel)) for kernel in kernels.unbind(1))
        recent = F.pad(u.transpose(1, 2), (n, 0))[..., -n:].flip(-1)  # b d n, newest first
        back = F.pad(w[:, :-1].transpose(1, 2), (n, 0))[..., -n:].flip(-1)
        enter, feed = (self._each(toeplitz(part)) for part in (b, a))
        return y, torch.einsum("bdj,dji->bdi", recent, enter) + torch.einsum("bdj,dji->bdi", back, feed)

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """y + W gelu(y), or nothing."""
        return y if self.linear is None else y + self.linear(F.gelu(y))

    def next_inputs(self, x: Sequence) -> Sequence:
        """From rest: after each token what k says of the next one, k x_t, (b, t, d).

        Raises:
            ValueError: there is no feedback.
        """
        with torch.autocast(x.device.type, enabled=False):
            a, b, _, _ = self.system()
            kernel = companion_kernel(a, b, self._feedback().k[:, None], x.shape[1])[:, 0]  # type: ignore[index]
            u = x.to(kernel.dtype)
            return fft_conv(u, self._each(kernel)).to(x.dtype)

    def closed_loop(self, state: SpaceTimeState, horizon: int) -> tuple[Sequence, Sequence]:
        """Run on without inputs: outputs and predicted inputs (b, horizon, d) after the state's last token.

        y_h = c (A + b k^T)^h x and u_h = k (A + b k^T)^h x for h = 0 .. horizon - 1, the outputs through the
        readout. u_0 is what k says of the first input that never came. The rows c (A + b k^T)^h are made one
        after the other, which with this matrix costs O(n) each, in float64; nothing keeps them bounded.

        Raises:
            ValueError: there is no feedback, or a horizon below 1.
        """
        if horizon < 1:
            raise ValueError(f"A closed loop runs on for 1 step or more; got horizon={horizon}.")
        with torch.autocast(state.x.device.type, enabled=False):
            one = self._feedback()
            assert one.k is not None
            row, rows = torch.stack([one.c, one.k], 1), []
            for _ in range(horizon):
                rows.append(row)
                # r (S + a e^T + b k^T): r moves up, r a enters at its end, and r b times k is added.
                fed, seen = (row * one.a[:, None]).sum(-1), (row * one.b[:, None]).sum(-1)
                row = torch.cat([row[..., 1:], fed[..., None]], -1) + seen[..., None] * one.k[:, None]
            both = self._each(torch.stack(rows, 1)).to(state.x.dtype)  # d horizon 2 n
            y, u = torch.einsum("bdn,dhmn->mbhd", state.x, both)
        kind = self.a.dtype
        return self.readout(y.to(kind)), u.to(kind)

    def _feedback(self) -> Companion:
        if self.k is None:
            raise ValueError(
                "This SpaceTime has no feedback: it never learned to predict its input. Build it with "
                "feedback=True."
            )
        return self.system(torch.float64)

    @classmethod
    def example(cls) -> "SpaceTime":
        """A small instance."""
        return cls(8, kernel_dim=5, n_kernels=4)


def _scaled(weights: Tensor) -> Tensor:
    """Rows divided by the sums of their sizes."""
    size = weights.abs().sum(-1, keepdim=True)
    return weights / torch.where(size > SMALLEST, size, 1.0)

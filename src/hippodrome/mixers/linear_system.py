"""The linear system: the original state space model, with dense matrices and every input on one state."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo
from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup, check_word
from hippodrome.ops.dense_scan import dense_scan
from hippodrome.ops.discretize import DENSE
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What a linear system carries from token to token."""

    x: Float[Tensor, "b n"]
    """The state, in float32 or wider."""


class LinearSystem(Mixer):
    """x' = A x + B u, y = C x + D u with dense A (n, n), B (n, d), C (d, n) and D (d, d), and nothing else.

    Kalman 1960, "A new approach to linear filtering and prediction problems"; as a layer of a network
    Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, arXiv 2110.13985, equations 1 and 2. It is linear from end
    to end: a stack of them needs something between. Each row of B starts as that of the HiPPO
    system times random weights of the channels, so each entry of the state remembers a mixture of its own.
    A learned A is free to leave the stable ones; its learning rate is kept low.

    ``dt`` multiplies the step size.

    Args:
        d_model: channels in and out.
        d_state: size n of the state.
        init: where A and B start: a HiPPO system ("legs", "legt", "lagt", "fout", "foud", "lmu"), or
            "random", a skew matrix less one half, which is stable.
        discretization: "zoh", "bilinear", "forward_euler" or "backward_euler".
        step_size: the step size at first; 1 / step_size is about how many steps the state remembers.
        learn: "all", or "readout" to train C and D alone.

    Raises:
        ValueError: an unknown init, discretization or learn, a step size that is not positive, or an odd
            d_state where the init needs an even one.
    """

    accepts_dt = True
    A: Tensor
    B: Tensor
    log_dt: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        init: str = "legs",
        discretization: str = "zoh",
        step_size: float = 0.01,
        learn: str = "all",
    ) -> None:
        super().__init__()
        check_word("LinearSystem", "init", init, [*hippo.MEASURES, "random"])
        check_word("LinearSystem", "discretization", discretization, DENSE)
        check_word("LinearSystem", "learn", learn, ["all", "readout"])
        if not step_size > 0:
            raise ValueError(f"A step size is a positive length of time; got {step_size}.")
        self.d_model, self.d_state, self.discretization = d_model, d_state, discretization
        self._memo: Memo = Memo()
        if init == "random":
            G = torch.randn(d_state, d_state, dtype=torch.float64)
            A = (G - G.T) / (2 * d_state) ** 0.5 - 0.5 * torch.eye(d_state, dtype=torch.float64)
            b = torch.ones(d_state, dtype=torch.float64)
        else:
            A, b = hippo.MEASURES[init](d_state)
        B = b[:, None] * torch.randn(d_state, d_model, dtype=torch.float64) / d_model**0.5
        slow = {"A": A, "B": B, "log_dt": torch.full((), math.log(step_size), dtype=torch.float64)}
        for name, value in slow.items():
            value = value.to(torch.get_default_dtype())
            if learn == "all":
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.C = nn.Parameter(torch.randn(d_model, d_state) / d_state**0.5)
        self.D = nn.Parameter(torch.randn(d_model, d_model) / d_model**0.5)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        dtype = torch.promote_types(self.C.dtype, torch.float32)
        return State(self.C.new_zeros(batch, self.d_state, dtype=dtype))

    def discretize(self, dt: Tensor | None = None) -> tuple[Float[Tensor, "*t n n"], Float[Tensor, "*t n d"]]:
        """Abar and Bbar of the learned step size, times ``dt`` (...) where there is one."""
        wide = torch.promote_types(self.A.dtype, torch.float32)
        size = torch.exp(self.log_dt.to(wide))
        size = size if dt is None else size * dt.to(wide)
        return DENSE[self.discretization](self.A.to(wide), self.B.to(wide), size)

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: x = Abar x + Bbar u, y = C x + D u."""
        with torch.autocast(x_t.device.type, enabled=False):
            u = x_t.to(state.x.dtype)
            Abar, Bbar = self._constant() if dt_t is None else self.discretize(dt_t)
            x = _times(Abar, state.x) + _times(Bbar, u)
            y = self._read(x, u)
        return y.to(x_t.dtype), State(x)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: a scan with constant matrices; with ``dt`` one with a matrix for each token."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            h = self.init_state(x.shape[0]).x if state is None else state.x
            u = x.to(h.dtype)
            if dt is None:
                Abar, Bbar = self._constant()
                states, h = dense_scan(Abar, _times(Bbar, u), h, resets)
            else:

                def block(h: Tensor, u: Tensor, dt: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
                    Abar, Bbar = self.discretize(dt)
                    return dense_scan(Abar, _times(Bbar, u), h, resets)

                length = steps_within(x.shape[0] * self.d_state * (self.d_state + self.d_model))
                states, h = run_in_blocks(block, length, h, u, dt, resets)
            y = self._read(states, u)
        return y.to(x.dtype), State(h)

    def _constant(self) -> tuple[Tensor, Tensor]:
        """Abar and Bbar of dt = 1, kept from token to token while nobody trains."""
        return self._memo.get(self, self.discretize, self.discretization)

    def _read(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ self.C.to(x.dtype).T + u @ self.D.to(x.dtype).T

    def parameter_groups(self) -> list[ParameterGroup]:
        """A, B and the step size: at most 1e-3, no decay."""
        slow = [p for p in (self.A, self.B, self.log_dt) if isinstance(p, nn.Parameter)]
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)] if slow else []

    @classmethod
    def example(cls) -> "LinearSystem":
        """A small instance."""
        return cls(8, d_state=6, step_size=0.1)


def _times(M: Tensor, v: Tensor) -> Tensor:
    """M v: one matrix for all vectors v (..., k), or one for each."""
    return v @ M.mT if M.dim() == 2 else (M @ v[..., None])[..., 0]

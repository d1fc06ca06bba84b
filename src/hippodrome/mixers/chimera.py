"""Chimera: a state space in two dimensions, along time and along the variates, chosen by the input."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import StepProjection, initial_step_bias
from hippodrome.mixers.base import Mixer, ParameterGroup, check_word
from hippodrome.ops.scan2d import scan2d
from hippodrome.ops.selective_scan2d import selective_scan2d
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

COUPLINGS = ("held", "exponential", "none")
RULES = ("zoh", "euler")


class State(NamedTuple):
    """What Chimera carries from time to time: r directions over v variates of e channels of n numbers."""

    h: Float[Tensor, "b r v 2 en"]
    """Both states of each variate, channel and number, in float32 or wider."""


class _Cells(NamedTuple):
    """The discrete system of each cell, or of all where nothing of it is chosen by the input."""

    a: Float[Tensor, "*cells 4 en"]
    u: Float[Tensor, "*tokens 2 en"]
    C: Float[Tensor, "*each 2 e n"]


class Chimera(Mixer):
    """h1[v,t] = A1 h1[v,t-1] + A2 h2[v,t-1] + B1 x[v,t], h2[v,t] = A3 h1[v-1,t] + A4 h2[v-1,t] + B2 x[v,t],
    y[v,t] = C1 h1[v,t] + C2 h2[v,t] + D x[v,t], with x = silu(W u); then a gate silu(z) and a map out.

    Behrouz, Santacatterina, Zabih 2024, "Chimera: effectively modeling multivariate time series with
    2-dimensional state space models", arXiv 2406.04320, section 3, equations of the two-dimensional state
    space. All A are diagonal. A1, A2 and B1 are discretized with a step size D1 of time, A3, A4 and B2 with
    one of the variates, D2; B1, B2, C1, C2, D1 and D2 are functions of the input. The recurrence is that of
    the paper; how its authors discretize the coupled terms and all else of their layer could not be
    confirmed from a source at hand, so it is configurable:

    - ``coupling`` "held": A2 = -A1 tanh(k2) enters as an input held over the step, as B does by zero-order
      hold, so abar2 = (1 - abar1) tanh(k2); likewise abar3 = (1 - abar4) tanh(k3). A state is then no larger
      than the larger of the two it comes from: stable whatever is learned and whatever the step sizes are.
      "exponential": abar2 = exp(D1 A2) and abar3 = exp(D2 A3), A2 and A3 negative. It may grow along the
      diagonal of the grid; at the start it does not.
      "none": abar2 = abar3 = 0. A scan along time beside a scan along the variates, which is Mamba in two
      dimensions, and with ``heads`` Mamba-2 in two dimensions.
    - ``rule`` "zoh": Bbar1 = (exp(D1 A1) - 1) / A1 B1 and Bbar2 likewise with A4; "euler": D1 B1 and D2 B2.

    A token is one time of all variates, flattened: x (b, t, d_model) holds variates, then channels, so
    d_model = variates * channels, and norms around this mixer are over the channels of each variate. It is
    causal in time. Along the variates it reads from the first to the last, and with ``bidirectional`` a
    second system reads from the last to the first; the outputs add up. ``dt`` multiplies D1.

    Args:
        d_model: numbers of a flattened token, in and out.
        variates: v; with 1 what is left is a state space along time.
        d_state: n, numbers of each of the two states of a channel.
        expand: channels of the recurrence as a multiple of the channels of a variate.
        selective: whether B, C and the step sizes depend on the input; without, the system is
            time-invariant: a convolution over the grid.
        bidirectional: whether the variates are read both ways.
        coupling: "held", "exponential" or "none".
        rule: "zoh" or "euler".
        heads: where given, channels are in so many heads of one rate and one step size each.
        dt_rank: rank of the maps to the step sizes; None takes a sixteenth of the channels, rounded up.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start.
        variate_dt_min: the same along the variates; None takes that of time.
        variate_dt_max: the same along the variates.

    Raises:
        ValueError: variates that do not divide d_model, heads that do not divide the channels, or an unknown
            name.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        variates: int = 1,
        d_state: int = 8,
        expand: int = 2,
        selective: bool = True,
        bidirectional: bool = True,
        coupling: str = "held",
        rule: str = "zoh",
        heads: int | None = None,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        variate_dt_min: float | None = None,
        variate_dt_max: float | None = None,
    ) -> None:
        super().__init__()
        check_word("Chimera", "coupling", coupling, COUPLINGS)
        check_word("Chimera", "rule", rule, RULES)
        if variates < 1 or d_model % variates:
            raise ValueError(
                f"A token of Chimera is one time of all variates flattened, so d_model is a multiple of "
                f"them; got d_model={d_model} and {variates} variates. Take a multiple of {max(1, variates)}."
            )
        self.d_model, self.variates, self.d_state = d_model, variates, d_state
        self.point_channels = channels = d_model // variates
        inner = expand * channels
        if heads is not None and (heads < 1 or inner % heads):
            raise ValueError(
                f"The heads of Chimera divide its {inner} inner channels; got heads={heads}. Take a divisor."
            )
        rank = -(-channels // 16) if dt_rank is None else dt_rank
        self.in_proj = Projection(channels, 2 * inner, bias=False)
        least = dt_min if variate_dt_min is None else variate_dt_min
        most = dt_max if variate_dt_max is None else variate_dt_max
        starts = ((dt_min, dt_max), (least, most))
        self.systems = nn.ModuleList(
            _System(inner, d_state, selective, coupling, rule, heads, rank, starts)
            for _ in range(2 if bidirectional else 1)
        )
        self.out_proj = Projection(inner, channels, bias=False)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        weight = self.in_proj.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        size = weight.shape[0] // 2 * self.d_state
        return State(weight.new_zeros(batch, len(self.systems), self.variates, 2, size, dtype=wide))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One time: one variate after the other, as the paper writes it."""
        x, z = self._inputs(x_t)
        y, after = torch.zeros_like(x), []
        for r, system in enumerate(self._systems()):
            a, u, C = system.cells(_turned(x, r, 1), dt_t)
            h, beside = [], u.new_zeros(len(u), 2, u.shape[-1])
            for v in range(self.variates):
                a1, a2, a3, a4 = (a if a.dim() == 2 else a[:, v]).unbind(-2)
                own = state.h[:, r, v].to(u.dtype)
                h1 = a1 * own[:, 0] + a2 * own[:, 1] + u[:, v, 0]
                h2 = a3 * beside[:, 0] + a4 * beside[:, 1] + u[:, v, 1]
                beside = torch.stack([h1, h2], 1)
                h.append(beside)
            after.append(torch.stack(h, 1))
            y = y + _turned(system.readout(after[-1], C, _turned(x, r, 1)), r, 1).to(y.dtype)
        return self.out_proj(y * F.silu(z)).flatten(-2), State(torch.stack(after, 1))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many times at once, each direction by a scan over the grid."""
        self.check_call(x, state, resets, dt)
        inner, z = self._inputs(x)
        y, after = torch.zeros_like(inner), []
        for r, system in enumerate(self._systems()):
            turned = _turned(inner, r, 2)
            out, last = system.scan(turned, None if state is None else state.h[:, r], resets, dt)
            y = y + _turned(out, r, 2).to(y.dtype)
            after.append(last)
        return self.out_proj(y * F.silu(z)).flatten(-2), State(torch.stack(after, 1))

    def _inputs(self, x: Float[Tensor, "*tokens d"]) -> tuple[Tensor, Tensor]:
        """Inputs of the recurrence and of the gate, (..., variates, e) each."""
        u, z = self.in_proj(x.unflatten(-1, (self.variates, -1))).chunk(2, -1)
        return F.silu(u), z

    def _systems(self) -> list["_System"]:
        return list(self.systems)  # type: ignore[arg-type]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Rates, coupling and the step sizes at 1e-3 at most; they and D without decay."""
        systems = self._systems()
        slow = [p for s in systems for p in (s.A_log, s.cross, *s.step_biases()) if p is not None]
        return [
            ParameterGroup(slow, max_lr=1e-3, decay=False),
            ParameterGroup([s.D for s in systems], decay=False),
        ]

    @classmethod
    def example(cls) -> "Chimera":
        """A small instance: three variates of two channels."""
        return cls(6, variates=3, d_state=2)


def _turned(x: Tensor, direction: int, axis: int) -> Tensor:
    """The variates in the order in which a direction reads them."""
    return x.flip(axis) if direction else x


def _outer(x: Float[Tensor, "*cells 1 e 1"], B: Float[Tensor, "*each 2 m n"]) -> Tensor:
    """x times B, (..., 2, e, n); where B is one vector for all channels the product of matrices is faster."""
    if B.shape[-2] > 1:
        return x * B
    with torch.autocast(x.device.type, enabled=False):
        return torch.matmul(x, B)


class _System(nn.Module):
    """The cells of one direction: from inputs to the discrete system, and from states to outputs."""

    def __init__(
        self,
        inner: int,
        d_state: int,
        selective: bool,
        coupling: str,
        rule: str,
        heads: int | None,
        rank: int,
        starts: tuple[tuple[float, float], tuple[float, float]],
    ) -> None:
        super().__init__()
        self.inner, self.d_state, self.rank, self.rule, self.coupling = inner, d_state, rank, rule, coupling
        steps = inner if heads is None else heads
        self.x_proj = self.dt_projs = self.dt_bias = self.B = self.C = None
        if selective:
            self.x_proj = Projection(inner, 2 * rank + 4 * d_state, bias=False)
            self.dt_projs = nn.ModuleList(StepProjection(rank, steps, *start, 1e-4) for start in starts)
        else:
            biases = [initial_step_bias(steps, *start) for start in starts]
            self.dt_bias = nn.Parameter(torch.stack(biases))
            self.B = nn.Parameter(torch.ones(2, inner, d_state))
            self.C = nn.Parameter(torch.randn(2, inner, d_state) * d_state**-0.5)
        # Of one rate a head, or of rates 1, .. n for the n numbers of each channel.
        rates = torch.ones(2, steps, 1)
        if heads is None:
            rates = torch.arange(1.0, d_state + 1).expand(2, steps, -1)
        self.A_log = nn.Parameter(rates.log().clone())
        self.cross: nn.Parameter | None = None
        if coupling == "held":
            self.cross = nn.Parameter(torch.full(rates.shape, math.atanh(0.5)))
        elif coupling == "exponential":
            # abar2 is then (1 - abar1) / 2 at the first step sizes, well inside what is stable.
            sizes = F.softplus(torch.stack(self._biases()).detach())[..., None]
            own = -torch.expm1(-sizes * rates)
            self.cross = nn.Parameter((-torch.log(own / 2) / sizes).log())
        self.D = nn.Parameter(torch.ones(inner))

    def step_biases(self) -> list[nn.Parameter]:
        """The parameters that the step sizes start from."""
        if self.dt_bias is not None:
            return [self.dt_bias]
        assert self.dt_projs is not None
        return [projection.bias for projection in self.dt_projs]  # type: ignore[misc]

    def _biases(self) -> list[Tensor]:
        """The same of time and of the variates."""
        return list(self.dt_bias) if self.dt_bias is not None else list(self.step_biases())

    def cells(self, x: Float[Tensor, "*tokens v e"], dt: Float[Tensor, "*tokens"] | None) -> _Cells:
        """The discrete system of each cell, in float32 or wider."""
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        size, B, C = self._chosen(x, dt)
        if self.x_proj is not None:
            B, C = B[..., None, :], C[..., None, :]
        size = size[..., None]
        A = -torch.exp(self.A_log.to(wide))
        fall = torch.expm1(size * A)
        gain = fall * A.reciprocal() if self.rule == "zoh" else size.expand_as(fall)
        other = torch.zeros_like(fall)
        if self.cross is not None:
            cross = self.cross.to(wide)
            held = self.coupling == "held"
            other = -fall * torch.tanh(cross) if held else torch.exp(-size * torch.exp(cross))
        own, gain, other = (self._whole(part) for part in (1 + fall, gain, other))
        a = torch.stack([own[..., 0, :, :], *other.unbind(-3), own[..., 1, :, :]], -3)
        u = gain * _outer(x.to(wide)[..., None, :, None], B)
        if a.dim() > 3:  # told apart by dt alone, all variates of one time are alike
            a = a.expand(*x.shape[:-1], *a.shape[-3:])
        return _Cells(a.flatten(-2), u.flatten(-2), C)

    def _chosen(
        self, x: Float[Tensor, "*tokens v e"], dt: Float[Tensor, "*tokens"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes (..., 2, s), B and C: (..., 2, n) where the input chooses them, else (2, e, n)."""
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        biases = [bias.to(wide) for bias in self._biases()]
        if self.x_proj is None:
            assert self.B is not None
            assert self.C is not None
            raw, B, C = torch.stack(biases), self.B.to(wide), self.C.to(wide)
        else:
            assert self.dt_projs is not None
            r, n = self.rank, self.d_state
            low, both = self.x_proj(x).split([2 * r, 4 * n], -1)
            lows = zip(self.dt_projs, low.chunk(2, -1), biases, strict=True)
            raw = torch.stack([projection(one).to(wide) + bias for projection, one, bias in lows], -2)
            B, C = (part.unflatten(-1, (2, n)).to(wide) for part in both.chunk(2, -1))
        size = F.softplus(raw)
        if dt is not None:
            factor = dt.to(wide)[..., None, None]
            along = torch.stack([factor, torch.ones_like(factor)], -2)  # time alone is stretched
            size = size * along
        return size, B, C

    def scan(
        self,
        x: Float[Tensor, "b t v e"],
        state: Float[Tensor, "b v 2 en"] | None,
        resets: Resets | None,
        dt: TimeSteps | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs (b, t, v, e) of many times, and the states of the last one (b, v, 2, en).

        What is chosen by the input goes by zero-order hold through one fused scan, in which no coefficient
        of a cell is ever written; all else has its coefficients made first.
        """
        if self.x_proj is None or self.rule != "zoh" or self.coupling == "exponential":
            a, u, C = self.cells(x, dt)
            h, last = scan2d(a, u, None if state is None else state.to(u.dtype), None, resets)
            return self.readout(h, C, x), last
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        size, B, C = self._chosen(x, dt)
        A = -torch.exp(self.A_log.to(wide))
        K = torch.zeros_like(A) if self.cross is None else torch.tanh(self.cross.to(wide))
        shape = (self.inner, self.d_state)
        start = None if state is None else state.to(wide).unflatten(-1, shape)
        steps = self._whole(size[..., None])[..., 0]
        inputs = x.to(wide)
        y, last = selective_scan2d(inputs, steps, self._whole(A), self._whole(K), B, C, start, resets)
        return y + self.D.to(wide) * inputs, last.flatten(-2)

    def _whole(self, x: Float[Tensor, "*cells k s m"]) -> Float[Tensor, "*cells k e n"]:
        """What is one a head, for each of its channels and their numbers."""
        if x.shape[-2] < self.inner:
            x = x.repeat_interleave(self.inner // x.shape[-2], -2)
        return x.expand(*x.shape[:-1], self.d_state)

    def readout(self, h: Float[Tensor, "*cells 2 en"], C: Tensor, x: Float[Tensor, "*cells e"]) -> Tensor:
        """y of each cell, (..., v, e)."""
        h = h.unflatten(-1, (self.inner, self.d_state))
        if C.shape[-2] == 1:  # one vector for all channels: a product of matrices needs no room for products
            with torch.autocast(h.device.type, enabled=False):
                y = torch.matmul(h, C.mT)[..., 0].sum(-2)
        else:
            y = (h * C).sum((-3, -1))
        return y + self.D.to(y.dtype) * x.to(y.dtype)

    def kernel(self, times: int, variates: int) -> Float[Tensor, "e t v"]:
        """What an impulse in the first cell leaves behind where nothing is chosen by the input, without D x.

        Raises:
            ValueError: the system is selective, so there is no kernel.
        """
        if self.B is None:
            raise ValueError(
                "A selective system is no convolution, so it has no kernel. Take selective=False."
            )
        x = self.D.new_zeros(1, times, variates, self.inner)
        x[:, 0, 0] = 1
        a, u, C = self.cells(x, None)
        h, _ = scan2d(a, u)
        return self.readout(h, C, torch.zeros_like(x))[0].movedim(-1, 0)

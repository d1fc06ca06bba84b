"""Liquid-S4: a diagonal state space whose transition moves with the input."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import spectrum
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._stable import StablePairs
from hippodrome.mixers.base import check_word
from hippodrome.ops import _pairs
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import Discrete
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

KINDS = ("exact", "kb", "pb")


class State(NamedTuple):
    """What Liquid-S4 carries from token to token."""

    h: Float[Tensor, "b d n 2"]
    """Every mode's state divided by the Bbar of dt = 1; in float32 or wider."""
    products: Float[Tensor, "b p d"]
    """Of "kb" and "pb": the last input, the product of the last two, and so on up to degree - 1."""


class _Tables(NamedTuple):
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    one: Discrete
    factor: Tensor
    Bbar: Tensor
    weight: Tensor


class LiquidS4(StablePairs):
    """x_k = (Abar + Bbar u_k) x_{k-1} + Bbar u_k in each mode, y = 2 Re C x + D u, then GELU and a gate.

    Hasani, Lechner, Wang, Chahine, Amini, Rus 2022, "Liquid structural state-space models", arXiv 2209.12951,
    section 3, equations of the liquid state space and of its kernels: x' = (A + B u) x + B u, a liquid
    time-constant network (see LTC) that is linear in its input. A is diagonal here, one of each conjugate
    pair kept, so the whole recurrence is an associative scan:

    - "exact" runs it as it stands. Written out it is
      y_k = sum over p and i < j_1 < .. < j_(p-1) <= k of
      (C Abar^(k-i-p+1) Bbar^p) u_i u_(j_1) .. u_(j_(p-1)): order 1 is S4, order p has products of p
      inputs. |Abar + Bbar u| exceeds 1 for large inputs and the state then grows: put a norm before it.
    - "kb" is S4 and, of each order from 2 to ``degree``, the products v_p of p inputs in a row: each is
      convolved with its liquid kernel C Abar^m Bbar^p. These are the exact terms with no gap between inputs.
    - "pb" has 1 for Abar there, and adds (C Bbar^p) v_p of the current token with no convolution.

    The published code also has all combinations of the last few inputs ("allcombs"), which look at no
    position and are not causal; they are not here. ``dt`` multiplies the step size.

    Args:
        d_model: channels in and out.
        d_state: real size N of each channel's state; N / 2 complex numbers are kept.
        liquid_kernel: "exact", "kb" or "pb".
        degree: highest order of "kb" and "pb", at least 2; "exact" has all orders and takes none.
        init: where the poles start: "lin", "inv", "legs" or "real" (see ``inits.spectrum``).
        discretization: "bilinear", "zoh" or another rule of ``ops.discretize``.
        dt_min: smallest initial step size.
        dt_max: largest initial step size.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.

    Raises:
        ValueError: an unknown word, an odd d_state, or a degree missing or out of place.
    """

    accepts_dt = True
    mixes_channels = True
    reversed_from = "offset"

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        liquid_kernel: str = "exact",
        degree: int | None = None,
        init: str = "legs",
        discretization: str = "bilinear",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        gated: bool = True,
    ) -> None:
        super().__init__()
        check_word("Liquid-S4", "liquid_kernel", liquid_kernel, KINDS)
        check_word("Liquid-S4", "init", init, spectrum.S4D)
        if liquid_kernel == "exact" and degree is not None:
            raise ValueError(
                f"liquid_kernel='exact' has the products of all orders; got degree={degree}. Leave it out."
            )
        if liquid_kernel != "exact" and (degree is None or degree < 2):
            raise ValueError(
                f"liquid_kernel={liquid_kernel!r} adds products of 2 up to degree inputs, so degree is at "
                f"least 2; got {degree}. The published layers take 2 to 6."
            )
        self.kind = liquid_kernel
        self.degree = 1 if degree is None else degree
        self.choose_discretization(discretization)
        self.start(d_model, *spectrum.s4d(init, d_state), dt_min, dt_max)
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        h = self.B.new_zeros(batch, *self.B.shape, dtype=wide)
        return State(h, h.new_zeros(batch, self.degree - 1, self.d_model))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: h = (Abar + Bbar u) h + u with h = x / Bbar, or without Bbar u h and with products."""
        with torch.autocast(x_t.device.type, enabled=False):
            tables = self._memo.get(self, self._make, *self.settings())
            u = x_t.to(state.h.dtype)
            products = u[:, None] * state.products
            dt = None if dt_t is None else dt_t.to(u.dtype)
            decay, inputs, direct = self._drive(tables, u, products, dt)
            h = _pairs.times(decay, state.h) + inputs
            y = _pairs.times(tables.weight, h)[..., 0].sum(-1) + direct
            runs = torch.cat([u[:, None], products], 1)[:, :-1]
        return self.readout(y.to(x_t.dtype)), State(h, runs)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: a scan over blocks of time; "kb" and "pb" without ``dt`` in time-invariant chunks."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        with torch.autocast(x.device.type, enabled=False):
            tables = self._memo.get(self, self._make, *self.settings())
            u = x.to(state.h.dtype)
            products, last = _running_products(u, state.products, resets)
            if dt is None and self.kind != "exact":
                y, h = self._chunks(tables, u, products, state.h, resets)
            else:
                y, h = self._scan(
                    tables, u, products, state.h, resets, None if dt is None else dt.to(u.dtype)
                )
        return self.readout(y.to(x.dtype)), State(h, last)

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate; or nothing."""
        return self.output(y)

    def kernel(self, length: int, order: int = 1, kind: str = "kb") -> Float[Tensor, "d length"]:
        """The liquid kernel of products of ``order`` inputs: 2 Re sum_n C Abar^m Bbar^order, m < length.

        "pb" has 1 for Abar. Order 1 of "kb" is the kernel of S4.
        """
        if order < 1 or kind not in ("kb", "pb"):
            raise ValueError(
                f"A liquid kernel has an order of at least 1 and is 'kb' or 'pb'; got {order}, {kind!r}."
            )
        tables = self._make()
        weight = _pairs.times(tables.C, _power(tables.Bbar, order))
        log_a = tables.one.log_a if kind == "kb" else torch.zeros_like(tables.one.log_a)
        return vandermonde(log_a, weight, length)

    def orders(self, x: Sequence, degree: int) -> Float[Tensor, "p b t d"]:
        """The exact expansion term by term, orders 1 to ``degree``, from no state, without D and output map.

        Their sum is the truncation, whose error is of the order of max |Bbar u|^(degree + 1). Order p is a
        scan too: h_p,k = Abar h_p,k-1 + Bbar u_k h_(p-1),k-1. Holds the states of all tokens.
        """
        tables = self._make()
        a, u = tables.factor.flatten(0, 1), x.to(tables.A.dtype)[..., None, None]
        inputs = torch.cat([u, torch.zeros_like(u)], -1).expand(*x.shape, tables.A.shape[1], 2)
        found = []
        for _ in range(degree):
            states = linear_scan_complex(a, inputs.flatten(2, 3))[0].view_as(inputs)
            found.append(_pairs.times(tables.weight, states)[..., 0].sum(-1))
            before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
            inputs = _pairs.times(tables.Bbar * u, before)
        return torch.stack(found)

    def second_order(self, x: Sequence) -> Sequence:
        """Order 2 of the exact expansion by two convolutions: S * (g conv u) - g conv (u * S).

        S_k = u_0 + .. + u_k, g_0 = 0 and g_m = 2 Re sum_n C Abar^(m-1) Bbar^2: no state is formed.
        """
        u = x.to(torch.promote_types(x.dtype, torch.float32))
        total = u.cumsum(1)
        g = torch.nn.functional.pad(self.kernel(x.shape[1], 2), (1, 0))[:, :-1]
        return total * fft_conv(u, g) - fft_conv(u * total, g)

    def _make(self) -> _Tables:
        A, B, C, D = self.system()
        one = self.discretize(A, self.step_size()[:, None])
        Bbar = _pairs.times(one.gain, B)
        return _Tables(A, B, C, D, one, _pairs.exp(one.log_a), Bbar, _pairs.times(C, Bbar))

    def _drive(
        self, tables: _Tables, u: Tensor, products: Tensor, dt: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Factor and input of each mode, and what goes past them, for u (..., d) and steps dt (...).

        ``products`` (..., p, d) ends at the current token and begins with two factors.
        """
        decay, Bbar = tables.factor, tables.Bbar
        inputs = torch.stack([u, torch.zeros_like(u)], -1)[..., None, :]
        ratio = None
        if dt is not None:
            log_a, gain = self.discretize(tables.A, dt[..., None, None] * self.step_size()[:, None])
            ratio, Bbar = _pairs.over(gain, tables.one.gain), _pairs.times(gain, tables.B)
            decay = _pairs.exp(log_a)
        direct, power = tables.D * u, Bbar
        for p in range(self.degree - 1):
            v = products[..., p, :]
            if self.kind == "kb":
                inputs = inputs + power * v[..., None, None]
                power = _pairs.times(power, Bbar)
            else:
                power = _pairs.times(power, Bbar)
                direct = direct + _pairs.times(tables.C, power)[..., 0].sum(-1) * v
        if ratio is not None:
            inputs = _pairs.times(ratio, inputs)
        if self.kind == "exact":
            decay = decay + Bbar * u[..., None, None]
        return decay, inputs, direct

    def _scan(
        self,
        tables: _Tables,
        u: Tensor,
        products: Tensor,
        h: Tensor,
        resets: Tensor | None,
        dt: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The recurrence with a factor of its own at each token."""

        def block(
            h: Tensor, u: Tensor, products: Tensor, resets: Tensor | None, dt: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            decay, inputs, direct = self._drive(tables, u, products, dt)
            inputs = inputs.expand(*u.shape, *h.shape[2:])
            states, last = linear_scan_complex(
                decay.flatten(2, 3), inputs.flatten(2, 3), h.flatten(1, 2), resets
            )
            return _pairs.times(tables.weight, states.view_as(inputs))[..., 0].sum(-1) + direct, last.view_as(
                h
            )

        return run_in_blocks(block, steps_within(h.numel() // 2), h, u, products, resets, dt)

    def _chunks(
        self, tables: _Tables, u: Tensor, products: Tensor, h: Tensor, resets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Without steps of their own "kb" and "pb" are time-invariant systems driven by products."""
        log_a, power = tables.one.log_a, tables.Bbar
        y, last = diagonal_lti(u, log_a, tables.weight, h, resets, tables.D)
        for p in range(self.degree - 1):
            v, factor = products[..., p, :], power
            power = _pairs.times(power, tables.Bbar)
            weight = _pairs.times(tables.C, power)
            if self.kind == "pb":
                y = y + weight[..., 0].sum(-1) * v
            else:
                more, end = diagonal_lti(v, log_a, weight, None, resets)
                y, last = y + more, last + _pairs.times(factor, end)
        return y, last

    @classmethod
    def example(cls) -> "LiquidS4":
        """A small instance."""
        return cls(8, d_state=8)


def _power(z: Tensor, exponent: int) -> Tensor:
    """z to a whole power of at least 1, (..., 2)."""
    result = z
    for _ in range(exponent - 1):
        result = _pairs.times(result, z)
    return result


def _running_products(u: Tensor, before: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Products of 2, 3, .. inputs that end at each token, (b, t, p, d), and those that the next token needs.

    ``before`` (b, p, d) holds the last products of 1, 2, .. inputs before the call.
    """
    products = [u]
    for p in range(before.shape[1]):
        earlier = torch.cat([before[:, p : p + 1], products[-1][:, :-1]], 1)
        if resets is not None:
            earlier = torch.where(resets[..., None], 0.0, earlier)
        products.append(u * earlier)
    together = torch.stack(products, 2)
    return together[:, :, 1:], together[:, -1, :-1].clone()

"""Update rules of a memory among several: how its matrices fade and what a token writes into them.

A rule gets queries, keys and values of heads and the raw gate channels of each token; it scales queries by
the root of their size. ``write`` is its definition for one token; ``scan`` takes many by an op, and lets pass
what is only there to fill a row.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers._matrix_state import NO_GATE, of_length_one, retention_rates
from hippodrome.mixers.base import check_word
from hippodrome.ops.delta_rule import delta_rule
from hippodrome.ops.gla import gla
from hippodrome.ops.ssd import ssd
from hippodrome.shapes import Resets

A_MAX = 16.0
"""Largest decay rate at the start; from zero on they are uniform."""

Heads = Float[Tensor, "*tokens h _"]
Read = tuple[Float[Tensor, "*tokens h v"], Float[Tensor, "b h _ _"]]


class Given(NamedTuple):
    """What a rule is given of each token."""

    q: Heads
    k: Heads
    v: Heads
    raw: Float[Tensor, "*tokens _"]
    """Gate channels."""


class Rule(nn.Module, ABC):
    """A rule for matrices of ``matrix`` in each head, driven by ``gates`` raw channels a token.

    Where ``keyed`` is False keys follow from the gates, and those given have no channels.
    """

    keyed = True
    gates: int
    matrix: tuple[int, int]

    @abstractmethod
    def write(self, of: Given, S: Tensor) -> Read:
        """One token (b, h, ...): what it reads, and the matrices after it."""

    @abstractmethod
    def scan(
        self, of: Given, S: Tensor | None, resets: Resets | None, valid: Bool[Tensor, "b t"] | None
    ) -> Read:
        """Many tokens (b, t, h, ...): all that is read, the last matrices. What is not valid does nothing."""

    @abstractmethod
    def log_decays(self, raw: Float[Tensor, "*tokens _"]) -> Float[Tensor, "*tokens c"]:
        """The logarithm of what each head, or each key channel of each head, keeps at a token."""

    def slow(self) -> list[nn.Parameter]:
        """Parameters that set time scales."""
        return []


class Scalar(Rule):
    """S = exp(dt A) S + dt v k^T, o = S q: one rate A a head; steps dt are one, or chosen by the token.

    Args:
        kind: "linear" (A = 0), "retention" (A = log gamma_h) or "mamba2" (A learned, dt = softplus).
        heads: how many matrices.
        keys: channels of a head's key.
        values: channels of its value.
    """

    def __init__(self, kind: str, heads: int, keys: int, values: int) -> None:
        super().__init__()
        self.kind, self.heads = kind, heads
        self.matrix = (values, keys)
        self.gates = heads if kind == "mamba2" else 0
        if self.gates:
            self.dt_bias, self.A_log = _time_scales(heads)

    def write(self, of: Given, S: Tensor) -> Read:
        """Fade, write, read."""
        q, k, v, raw = of
        dt, A = self._steps(v, raw, S)
        q, k, v = (m.to(S.dtype) for m in (_scaled(q), k, v))
        S = torch.addcmul(
            S * torch.exp(dt * A)[..., None, None], (v * dt[..., None])[..., None], k[..., None, :]
        )
        return (S * q[..., None, :]).sum(-1), S

    def scan(
        self, of: Given, S: Tensor | None, resets: Resets | None, valid: Bool[Tensor, "b t"] | None
    ) -> Read:
        """By state space duality; a step of zero passes."""
        dt, A = self._steps(of.v, of.raw, S)
        if valid is not None:
            dt = dt * valid[..., None]
        return ssd(of.v, dt, A, of.k, _scaled(of.q), None, S, resets)

    def log_decays(self, raw: Float[Tensor, "*tokens _"]) -> Float[Tensor, "*tokens h"]:
        """dt A of each head."""
        dt, A = self._steps(raw.new_empty(*raw.shape[:-1], self.heads, 0), raw, None)
        return dt * A

    def _steps(self, v: Tensor, raw: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(v.dtype if S is None else S.dtype, torch.float32)
        if self.kind == "mamba2":
            return F.softplus(raw.to(wide) + self.dt_bias.to(wide)), -torch.exp(self.A_log.to(wide))
        ones = torch.ones(v.shape[:-1], dtype=wide, device=v.device)
        if self.kind == "retention":
            return ones, retention_rates(self.heads, ones)
        return ones, ones.new_zeros(self.heads)

    def slow(self) -> list[nn.Parameter]:
        """A and the step sizes, where they are learned."""
        return [self.A_log, self.dt_bias] if self.gates else []


class Channelwise(Rule):
    """S = diag(alpha) S + k v^T, o = S^T q: every key channel fades at a rate chosen by the token.

    Args:
        tied: k = 1 - alpha with alpha = sigmoid of the gates (HGRN2, arXiv 2404.07904); else alpha is
            sigmoid(W raw + b)^(1/16) (gated linear attention, arXiv 2312.06635), W shared by all memories.
        heads: how many matrices.
        keys: channels of a head's key.
        values: channels of its value.
        rank: gate channels where keys are not tied.
    """

    def __init__(self, tied: bool, heads: int, keys: int, values: int, rank: int) -> None:
        super().__init__()
        self.keyed = not tied
        self.heads = heads
        self.matrix = (keys, values)
        self.gates = heads * keys if tied else rank
        if not tied:
            self.decay_proj = Projection(rank, heads * keys)

    def write(self, of: Given, S: Tensor) -> Read:
        """Fade, write, read."""
        k, log_decay = self._decays(of.k, of.raw)
        q, _, v, _ = of
        q, k, v, log_decay = (m.to(S.dtype) for m in (_scaled(q), k, v, log_decay))
        S = torch.addcmul(S * torch.exp(log_decay)[..., None], k[..., None], v[..., None, :])
        return (S * q[..., None]).sum(-2), S

    def scan(
        self, of: Given, S: Tensor | None, resets: Resets | None, valid: Bool[Tensor, "b t"] | None
    ) -> Read:
        """In chunks; what neither fades nor writes passes."""
        k, log_decay = self._decays(of.k, of.raw)
        if valid is not None:
            k, log_decay = k * valid[..., None, None], log_decay * valid[..., None, None]
        return gla(_scaled(of.q), k.to(of.v.dtype), of.v, log_decay, S, resets)

    def log_decays(self, raw: Float[Tensor, "*tokens _"]) -> Float[Tensor, "*tokens hk"]:
        """log alpha of each key channel of each head."""
        return self._decays(raw, raw)[1].flatten(-2)

    def _decays(self, k: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.decay_proj(raw) if self.keyed else raw
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32)).unflatten(-1, (self.heads, -1))
        if not self.keyed:
            return torch.sigmoid(-raw), F.logsigmoid(raw)
        return k, F.logsigmoid(raw) / 16


class Replace(Rule):
    """S = alpha S; S = S + k (beta (v - S^T k))^T, o = S^T q with k and q of length one: the delta rule.

    Args:
        gated: whether alpha = exp(-exp(A_log) softplus(raw + dt_bias)); else it is one.
        heads: how many matrices.
        keys: channels of a head's key.
        values: channels of its value.
    """

    def __init__(self, gated: bool, heads: int, keys: int, values: int) -> None:
        super().__init__()
        self.gated, self.heads = gated, heads
        self.matrix = (keys, values)
        self.gates = 2 * heads if gated else heads
        if gated:
            self.dt_bias, self.A_log = _time_scales(heads)

    def write(self, of: Given, S: Tensor) -> Read:
        """Fade, take the old value off, write, read."""
        q, k, beta, log_decay = self._drive(of)
        q, k, v, beta = (m.to(S.dtype) for m in (q, k, of.v, beta))
        if log_decay is not None:
            S = S * torch.exp(log_decay)[..., None, None]
        stored = (S * k[..., None]).sum(-2)
        S = torch.addcmul(S, k[..., None], (beta[..., None] * (v - stored))[..., None, :])
        return (S * q[..., None]).sum(-2), S

    def scan(
        self, of: Given, S: Tensor | None, resets: Resets | None, valid: Bool[Tensor, "b t"] | None
    ) -> Read:
        """In chunks; what neither fades nor replaces passes."""
        q, k, beta, log_decay = self._drive(of)
        if valid is not None:
            beta = beta * valid[..., None]
            log_decay = None if log_decay is None else log_decay * valid[..., None]
        return delta_rule(q, k, of.v, beta, log_decay, S, resets)

    def log_decays(self, raw: Float[Tensor, "*tokens _"]) -> Float[Tensor, "*tokens h"]:
        """Those of the gate; what the rule replaces is not counted.

        Raises:
            ValueError: there is no gate.
        """
        if not self.gated:
            raise ValueError(NO_GATE)
        wide = torch.promote_types(raw.dtype, torch.float32)
        steps = F.softplus(raw[..., self.heads :].to(wide) + self.dt_bias.to(wide))
        return -torch.exp(self.A_log.to(wide)) * steps

    def _drive(self, of: Given) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        q, k, _, raw = of
        beta = raw[..., : self.heads].to(torch.promote_types(raw.dtype, torch.float32)).sigmoid()
        log_decay = self.log_decays(raw) if self.gated else None
        return _scaled(of_length_one(q)), of_length_one(k), beta, log_decay

    def slow(self) -> list[nn.Parameter]:
        """A and the step sizes."""
        return [self.A_log, self.dt_bias] if self.gated else []


RULES = ("linear", "retention", "gla", "hgrn2", "delta", "mamba2", "gated_delta")
CONVOLVED = ("delta", "mamba2", "gated_delta")
"""Rules whose published layers put a short convolution before the memory."""


def build_rule(kind: str, heads: int, keys: int, values: int, rank: int) -> Rule:
    """The rule of this name.

    Raises:
        ValueError: there is no such rule.
    """
    check_word("A mixture of memories", "update rule", kind, RULES)
    if kind in ("gla", "hgrn2"):
        return Channelwise(kind == "hgrn2", heads, keys, values, rank)
    if kind in ("delta", "gated_delta"):
        return Replace(kind == "gated_delta", heads, keys, values)
    return Scalar(kind, heads, keys, values)


def _scaled(q: Tensor) -> Tensor:
    """Queries over the root of their size."""
    return q * q.shape[-1] ** -0.5


def _time_scales(heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """First values of dt_bias and A_log."""
    # Uniform on (0, A_MAX]: the logarithm of zero would be a rate that never learns.
    rates = torch.log(A_MAX * (1 - torch.rand(heads)))
    return nn.Parameter(initial_step_bias(heads)), nn.Parameter(rates)

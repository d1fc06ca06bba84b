"""The structures of mixing matrices: each as a matrix, and as its product with the tokens in its best form.

A structure is told ``given`` (b, t, c), c numbers for each token: made of the tokens (then the matrix is
data-dependent and grows with them: "sequence alignment"), or learned, one row for each place, with b = 1.
Rows end at their ``lengths``; what is mixed is zero behind. Hwang, Lahoti, Dao, Gu 2024, "Hydra:
bidirectional state space models through generalized matrix mixers", arXiv 2407.09941; scales and signs are
those of the authors' code, where the number of tokens is that of the longest row.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones._quasiseparable import quasiseparable
from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers.base import ParameterGroup

Values = Float[Tensor, "b t h p"]
Given = Float[Tensor, "_b t _c"]
Lengths = Int[Tensor, "b"] | None
"""None where all rows are whole."""
Matrices = Float[Tensor, "_b h t t"]


class Structure(nn.Module, ABC):
    """One mixing matrix M for each head. ``mix`` gives M v, ``matrix`` M itself.

    M holds the identity, so that a token starts as what it was; only the quasiseparable matrix has a free
    diagonal instead.

    Args:
        heads: h.
        d_state: n, numbers of a token's query and of its key, for each head.
        aligned: whether ``given`` is made of the tokens.
    """

    channels: int
    """c, less ``steps``."""
    steps: int = 0
    """How many of ``given``, the last ones, do not go through the convolution."""
    activated: bool = True
    """Whether silu follows the convolution of what is given, as it does that of what is mixed."""

    def __init__(self, heads: int, d_state: int, aligned: bool) -> None:
        super().__init__()
        self.heads, self.d_state, self.aligned = heads, d_state, aligned
        self.channels = 2 * heads * d_state

    @abstractmethod
    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """(M - 1) v by the cheapest form there is."""

    @abstractmethod
    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """M - 1."""

    def mix(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """M v; ``v`` is zero behind the lengths."""
        return v + self.product(v, given, lengths)

    def matrix(self, v: Values, given: Given, lengths: Lengths) -> Matrices:
        """M, in the rows and columns of valid tokens."""
        return self.off(given, lengths) + torch.eye(v.shape[1], dtype=v.dtype, device=v.device)

    def first(self, max_length: int) -> Float[Tensor, "max_length c"]:
        """What is given at the start where it is learned."""
        return nn.init.xavier_normal_(torch.empty(max_length, self.channels))

    def pairs(self, given: Given) -> tuple[Float[Tensor, "_b t h n"], Float[Tensor, "_b t h n"]]:
        """Queries, by which rows of M are made, and keys, by which columns."""
        q, k = given.unflatten(-1, (2, self.heads, self.d_state)).unbind(2)
        return q, k

    def parameter_groups(self) -> list[ParameterGroup]:
        """None but those of step sizes."""
        return []


def _scale(lengths: Tensor | None, factor: float, like: Tensor) -> Tensor | float:
    """(factor * tokens of the row)^-1/2, (b, 1, 1, 1)."""
    if lengths is None:
        return float(factor * like.shape[1]) ** -0.5
    return (factor * lengths.to(like.dtype)).rsqrt().view(-1, 1, 1, 1)


class _Explicit(Structure, ABC):
    """A structure whose product has no form better than the matrix, t^2 numbers a head."""

    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """The matrix, times the tokens."""
        return (self.off(given, lengths) @ v.transpose(1, 2)).transpose(1, 2)


class Dense(_Explicit):
    """Any matrix: M_ij = w_ij t^-1/2. Learned, since one made of tokens has no size of its own."""

    def __init__(self, heads: int, max_length: int) -> None:
        super().__init__(heads, 0, False)
        self.channels = heads * max_length

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """The corner of the learned matrix."""
        rows = given.unflatten(-1, (self.heads, -1))[..., : given.shape[1]].transpose(1, 2)
        return rows * _scale(lengths, 1.0, given)


class Toeplitz(Structure):
    """M_ij = f_{i-j} below the diagonal and on it, r_{j-i} above, times t^-1/2 / 2: a convolution.

    Token l gives the taps of lag l and of lag -l. In O(t log t) by the Fourier transform.
    """

    def __init__(self, heads: int, aligned: bool) -> None:
        super().__init__(heads, 1, aligned)

    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """The convolution, by transforms of 2 t points."""
        t = v.shape[1]
        f, r = given.unflatten(-1, (2, self.heads)).unbind(2)
        line = torch.cat([f, torch.zeros_like(f[:, :1]), r[:, 1:].flip(1)], 1)
        spectrum = torch.fft.rfft(v, 2 * t, 1) * torch.fft.rfft(line, 2 * t, 1)[..., None]
        return torch.fft.irfft(spectrum, 2 * t, 1)[:, :t] * _scale(lengths, 4.0, v)

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """The taps along their diagonals."""
        f, r = given.unflatten(-1, (2, self.heads)).unbind(2)
        place = torch.arange(given.shape[1], device=given.device)
        lag = place[:, None] - place
        taps = torch.where((lag >= 0)[..., None], f[:, lag.clamp(min=0)], r[:, (-lag).clamp(min=0)])
        return taps.permute(0, 3, 1, 2) * _scale(lengths, 4.0, given)


class Vandermonde(_Explicit):
    """M_ij = (2 t n)^-1/2 sum_n cos(2 pi e q_in j) - cos(2 pi e k_jn i) with e = 0.001.

    Learned, e is one and the two terms are added: with q_in = i / t, where it starts up to half a step of
    noise, each is the cosine transform.
    """

    activated = False

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """One state after the other, so that t^2 numbers a head are held for the sum."""
        q, k = self.pairs(given)
        turn = 2 * math.pi * (1e-3 if self.aligned else 1.0)
        place = turn * torch.arange(given.shape[1], dtype=given.dtype, device=given.device)
        total = None
        for n in range(self.d_state):
            rows = torch.cos(q[..., n].mT[..., None] * place)
            columns = torch.cos(k[..., n].mT[..., None] * place).mT
            term = rows - columns if self.aligned else rows + columns
            total = term if total is None else total + term
        assert total is not None  # there is one state at least
        return total * _scale(lengths, 2.0 * self.d_state, given)

    def first(self, max_length: int) -> Float[Tensor, "max_length c"]:
        """The frequencies of the transform, each off by a little."""
        place = torch.arange(max_length, dtype=torch.get_default_dtype())[:, None]
        return (place + torch.empty(max_length, self.channels).uniform_(-0.5, 0.5)) / max_length


class Cauchy(_Explicit):
    """M_ij = (t n)^-1/2 sum_n 1 / (exp(q_in) + exp(k_jn) + s), s twice a learned number, 0.5 at first.

    Learned, s is zero.
    """

    activated = False

    def __init__(self, heads: int, d_state: int, aligned: bool) -> None:
        super().__init__(heads, d_state, aligned)
        self.bias = nn.Parameter(torch.tensor(0.5)) if aligned else None

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """One state after the other."""
        q, k = (x.exp() for x in self.pairs(given))
        if self.bias is not None:
            q, k = q + self.bias.to(q.dtype), k + self.bias.to(k.dtype)
        total = None
        for n in range(self.d_state):
            term = (q[..., n].mT[..., None] + k[..., n].mT[..., None, :] + 1e-8).reciprocal()
            total = term if total is None else total + term
        assert total is not None  # there is one state at least
        return total * _scale(lengths, float(self.d_state), given)


class LowRank(Structure):
    """M = (t n)^-1/2 Q K^T, linear attention without a normalizer: O(t n) by Q (K^T v)."""

    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """What all keys write, then what each query reads."""
        q, k = self.pairs(given)
        held = torch.einsum("bthn,bthp->bhnp", k.expand(len(v), -1, -1, -1), v)
        read = torch.einsum("bthn,bhnp->bthp", q.expand(len(v), -1, -1, -1), held)
        return read * _scale(lengths, float(self.d_state), v)

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """The products of all queries with all keys."""
        q, k = self.pairs(given)
        return torch.einsum("bihn,bjhn->bhij", q, k) * _scale(lengths, float(self.d_state), given)


class Attention(Structure):
    """M = softmax(Q K^T n^-1/2), each row over the tokens that there are."""

    activated = False

    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """Fused attention: t^2 operations, and no t^2 numbers held where the machine can."""
        # Fused kernels want heads of one size: zeros change no product of a query with a key.
        wide = v.shape[-1]
        size = max(self.d_state, wide)
        heads = [
            F.pad(x, (0, size - x.shape[-1])).expand(len(v), -1, -1, -1) for x in (*self.pairs(given), v)
        ]
        q, k, v = (x.transpose(1, 2) for x in heads)
        seen = None if lengths is None else _seen(q.shape[2], lengths)
        y = F.scaled_dot_product_attention(q, k, v, seen, scale=self.d_state**-0.5)
        return y.transpose(1, 2)[..., :wide]

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """The softmax itself."""
        q, k = self.pairs(given)
        scores = torch.einsum("bihn,bjhn->bhij", q, k) * self.d_state**-0.5
        if lengths is not None:
            scores = scores.masked_fill(~_seen(given.shape[1], lengths), -torch.inf)
        return scores.softmax(-1)


def _seen(t: int, lengths: Tensor) -> Tensor:
    """Which keys there are, (b, 1, 1, t)."""
    return (torch.arange(t, device=lengths.device) < lengths[:, None])[:, None, None]


class Quasiseparable(Structure):
    """The matrix of Hydra (see ``_quasiseparable``) with one B and one C for both directions and all heads.

    They have h n numbers each, as many as queries and keys elsewhere. Learned, B and C are those of a place,
    the step size is that of a head and the diagonal is D alone.
    """

    def __init__(self, heads: int, d_state: int, aligned: bool, inner: int, chunk: int) -> None:
        super().__init__(heads, d_state, aligned)
        self.chunk = chunk
        self.steps = 2 * heads if aligned else 0
        self.dt_bias = nn.Parameter(initial_step_bias(heads))
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.fc_D = Projection(inner, heads, bias=False) if aligned else None

    def _parts(self, v: Values, given: Given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """B and C beside each other, step sizes (b, t, 2 h), decay rates and the diagonal."""
        both, raw = given[..., : self.channels].expand(len(v), -1, -1), given[..., self.channels :]
        bias, A, D = (p.to(v.dtype) for p in (self.dt_bias, -torch.exp(self.A_log.to(v.dtype)), self.D))
        raw = raw if self.steps else v.new_zeros(*v.shape[:2], 2 * self.heads)
        sizes = F.softplus(raw + bias.repeat(2))
        if self.fc_D is None:
            return both, sizes, A, D.expand(*v.shape[:3])
        return both, sizes, A, self.fc_D(v.flatten(-2).to(self.fc_D.weight.dtype)).to(v.dtype) + D

    def mix(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """One call of SSD over both directions: O(t)."""
        both, sizes, A, free = self._parts(v, given)
        n = self.channels // 2
        x = v.flatten(-2)
        y = quasiseparable(x, both, both, sizes, A, free, groups=1, d_state=n, chunk=self.chunk)
        return y.view(v.shape)

    def product(self, v: Values, given: Given, lengths: Lengths) -> Values:
        """What ``mix`` adds to the tokens."""
        return self.mix(v, given, lengths) - v

    def off(self, given: Given, lengths: Lengths) -> Matrices:
        """Refused: the diagonal is made of what is mixed."""
        raise ValueError("The diagonal of a quasiseparable matrix is made of what is mixed; take matrix.")

    def matrix(self, v: Values, given: Given, lengths: Lengths) -> Matrices:
        """Both triangles from running sums of the step sizes, and the diagonal."""
        both, sizes, A, free = self._parts(v, given)
        B, C = both.chunk(2, -1)
        heads = torch.eye(v.shape[1], dtype=v.dtype, device=v.device) * free.mT[..., None]
        for turned in (False, True):
            b, c, dt = (x.flip(1) if turned else x for x in (B, C, sizes.chunk(2, -1)[int(turned)]))
            since = dt.cumsum(1).mT
            # Row i is read by token i - 1, after the decay from j + 1 to i - 1.
            through = torch.exp(
                A[:, None, None] * (since[..., :-1, None] - since[..., None, :-1]).clamp(min=0)
            )
            below = through * (c[:, :-1] @ b[:, :-1].mT)[:, None] * dt[:, :-1].mT[..., None, :]
            below = F.pad(below.tril(), (0, 1, 1, 0))
            heads = heads + (below.flip(-1, -2) if turned else below)
        return heads

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes at 1e-3 at most; they and D without decay."""
        slow = ParameterGroup([self.A_log, self.dt_bias], max_lr=1e-3, decay=False)
        return [slow, ParameterGroup([self.D], decay=False)]


STRUCTURES = ("dense", "toeplitz", "vandermonde", "cauchy", "low_rank", "attention", "quasiseparable")


def build_structure(
    structure: str, heads: int, d_state: int, aligned: bool, max_length: int, inner: int, chunk: int
) -> Structure:
    """The structure of a name, which is one of ``STRUCTURES``."""
    if structure == "dense":
        return Dense(heads, max_length)
    if structure == "toeplitz":
        return Toeplitz(heads, aligned)
    if structure == "quasiseparable":
        return Quasiseparable(heads, d_state, aligned, inner, chunk)
    kinds: dict[str, type[Structure]] = {
        "vandermonde": Vandermonde,
        "cauchy": Cauchy,
        "low_rank": LowRank,
        "attention": Attention,
    }
    return kinds[structure](heads, d_state, aligned)

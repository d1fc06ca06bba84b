"""mLSTM: a matrix memory with exponential gates, kept in range by a stabilizer, read over a normalizer."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers.base import Mixer, ParameterGroup, check_word
from hippodrome.ops.gla import gla
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

EMPTY = -1e30
"""The stabilizer of an empty memory: a logarithm of no weight that differences can still be taken of."""
FLOOR = 1e-12
"""Least divisor of what is read, which only a query orthogonal to a memory of great weight comes down to."""


class State(NamedTuple):
    """What mLSTM carries from token to token. The memory itself is S exp(m), its normalizer n exp(m)."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    S: Float[Tensor, "b h k v"]
    """The matrix of each head over exp(m), in float32 or wider."""
    n: Float[Tensor, "b h k"]
    """The sum of its keys, weighted alike."""
    m: Float[Tensor, "b h"]
    """The stabilizer: the largest logarithm of a weight so far, or what is left of it."""


class Cell(NamedTuple):
    """What one token does to the memory, for any number of tokens, in float32 or wider."""

    q: Float[Tensor, "*tokens h k"]
    k: Float[Tensor, "*tokens h k"]
    v: Float[Tensor, "*tokens h v"]
    log_input: Float[Tensor, "*tokens h"]
    """Logarithm of the input gate."""
    log_forget: Float[Tensor, "*tokens h"]
    """Logarithm of the forget gate."""


class MLSTM(Mixer):
    """C_t = f_t C_{t-1} + i_t k_t v_t^T, n_t = f_t n_{t-1} + i_t k_t, h_t = C_t^T q_t / max(|n_t . q_t|, 1)
    in each head; i = exp(w_i . u + b_i), f = sigmoid or exp of w_f . u + b_f, k over the root of its size.

    Beck, Pöppel, Spanring, Auer, Prudnikova, Kopp, Klambauer, Brandstetter, Hochreiter 2024, "xLSTM: extended
    long short-term memory", arXiv 2405.04517, equations 19 to 27, stabilized as in equation 15. Around the
    cell stands the paper's block with projection before: x and z from a linear map; c = silu(conv(x)); q, k
    from c and v from x by maps of ``block`` channels each; gates from all three; out_proj((norm(h) + skip c)
    silu(z)).

    The stabilizer m_t = max(log f_t + m_{t-1}, log i_t) chooses the unit in which C and n are kept and
    nothing else: no gate makes a number overflow, and no gradient is taken of the choice. Gates and state
    stay in float32 at least.

    Args:
        d_model: channels in and out.
        heads: how many matrices.
        expand: channels inside as a multiple of d_model.
        taps: of the short convolution.
        block: channels that queries, keys and values mix, at most.
        forget: what the forget gate is: "sigmoid" or "exp".

    Raises:
        ValueError: heads or block do not divide expand * d_model, or an unknown forget gate.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        heads: int = 4,
        expand: int = 2,
        taps: int = 4,
        block: int = 4,
        forget: str = "sigmoid",
    ) -> None:
        super().__init__()
        inner = expand * d_model
        check_divides("heads", heads, "expand * d_model", inner)
        check_divides("block", block, "expand * d_model", inner)
        check_word("mLSTM", "forget gate", forget, ("sigmoid", "exp"))
        self.d_model = d_model
        self.heads = heads
        self.size = inner // heads
        self.block = block
        self.forget = forget
        self.in_proj = Projection(d_model, 2 * inner, bias=False)
        self.conv = ShortConv(inner, taps, silu=True)
        self.qkv = nn.Parameter(torch.empty(3, inner // block, block, block))
        nn.init.normal_(self.qkv, std=(2 / (5 * block)) ** 0.5)
        self.gates = Projection(3 * inner, 2 * heads)
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias[:heads].normal_(std=0.1)
            rates = torch.linspace(3.0, 6.0, heads)
            # Either gate starts at the rates that the published sigmoid one starts at.
            self.gates.bias[heads:].copy_(rates if forget == "sigmoid" else F.logsigmoid(rates))
        self.norm_weight = nn.Parameter(torch.ones(inner))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out_proj = Projection(inner, d_model, bias=False)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """No weight at all. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv.init_window(batch)
        S = window.new_zeros(batch, self.heads, self.size, self.size)
        return State(window, S, S[..., 0].clone(), S.new_full(S.shape[:2], EMPTY))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: gates, forget, write, read."""
        self.refuse_dt(dt_t)
        x, z = self.in_proj(x_t).chunk(2, -1)
        c, window = self.conv.step(x, state.window)
        cell = self._cell(x, c)
        m = torch.maximum(cell.log_forget + state.m, cell.log_input).detach()
        f = torch.exp(cell.log_forget + state.m - m)[..., None]
        k = cell.k * torch.exp(cell.log_input - m)[..., None]
        S = torch.addcmul(state.S * f[..., None], k[..., None], cell.v[..., None, :])
        n = state.n * f + k
        read, over = (S * cell.q[..., None]).sum(-2), (n * cell.q).sum(-1)
        return self._leave(_divide(read, over, m), c, z), State(window, S, n, m)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: stabilizers by a scan, then the memory in chunks, its normalizer one more value."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        x, z = self.in_proj(x).chunk(2, -1)
        c, window = self.conv(x, state.window, resets)
        held = torch.cat([state.S, state.n[..., None]], -1)
        read, held, m = _scan(self._cell(x, c), held, state.m, resets)
        return self._leave(read, c, z), State(window, held[..., :-1], held[..., -1], m[:, -1])

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """That of each head: what h_i is where the value of token j is the j-th unit vector."""
        self.check_call(x, None, resets)
        cell = self._driven(x, resets)
        b, t, heads, _ = cell.v.shape
        unit = torch.eye(t, dtype=cell.v.dtype, device=x.device)[None, :, None].expand(b, t, heads, t)
        first = cell.v.new_full((b, heads), EMPTY)
        return _scan(cell._replace(v=unit), None, first, resets)[0].transpose(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h"]:
        """Logarithms of the forget gates; above zero an exponential one makes the memory grow."""
        self.check_call(x, None)
        return self._driven(x, None).log_forget

    def _driven(self, x: Tensor, resets: Resets | None) -> Cell:
        """What the tokens do to the memory, from the first on."""
        inner = self.in_proj(x).chunk(2, -1)[0]
        return self._cell(inner, self.conv(inner, None, resets)[0])

    def _cell(self, x: Tensor, c: Tensor) -> Cell:
        """Queries, keys, values and gates from the channels before and after the convolution."""
        grouped = [m.unflatten(-1, (-1, self.block)) for m in (c, c, x)]
        maps = self.qkv.to(x.dtype).unbind()
        q, k, v = (
            torch.einsum("...gi,goi->...go", m, w).flatten(-2) for m, w in zip(grouped, maps, strict=True)
        )
        raw = self.gates(torch.cat([q, k, v], -1))
        wide = torch.promote_types(raw.dtype, torch.float32)
        log_input, log_forget = raw.to(wide).chunk(2, -1)
        if self.forget == "sigmoid":
            log_forget = F.logsigmoid(log_forget)
        q, k, v = (m.to(wide).unflatten(-1, (self.heads, -1)) for m in (q, k, v))
        return Cell(q, k * self.size**-0.5, v, log_input, log_forget)

    def _leave(self, h: Tensor, c: Tensor, z: Tensor) -> Tensor:
        """Each head normalized, the convolution's way around the cell, the gate, a linear map."""
        normed = F.layer_norm(h, (self.size,)).flatten(-2).to(c.dtype) * self.norm_weight
        return self.out_proj((normed + self.skip * c) * F.silu(z))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The gates' biases, norm and skip weights without decay."""
        return [ParameterGroup([self.gates.bias, self.norm_weight, self.skip], decay=False)]

    @classmethod
    def example(cls) -> "MLSTM":
        """A small instance."""
        return cls(8, heads=2, expand=1)


def _scan(
    cell: Cell, held: Tensor | None, first: Tensor, resets: Tensor | None
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v1"], Float[Tensor, "b t h"]]:
    """What is read at each token, the last memory beside its normalizer, and the stabilizers."""
    q, k, v, log_input, log_forget = cell
    with torch.no_grad():
        m = _stabilizers(log_forget, log_input, first, resets)
    before = torch.cat([first[:, None], m[:, :-1]], 1)
    if resets is not None:
        before = before.masked_fill(resets[..., None], EMPTY)
    log_decay = (log_forget + before - m)[..., None].expand_as(k)
    k = k * torch.exp(log_input - m)[..., None]
    y, held = gla(q, k, F.pad(v, (0, 1), value=1.0), log_decay, held, resets)
    return _divide(y[..., :-1], y[..., -1], m), held, m


def _divide(read: Tensor, over: Tensor, m: Tensor) -> Tensor:
    """What is read over max(|n . q|, 1), both of which are exp(m) times what is kept."""
    return read / torch.maximum(over.abs(), torch.exp(-m)).clamp_min(FLOOR)[..., None]


def _stabilizers(
    log_forget: Tensor, log_input: Tensor, first: Tensor, resets: Tensor | None
) -> Float[Tensor, "b t h"]:
    """m_t = max(log f_t + m_{t-1}, log i_t) for all t, by doubling the reach of each maximum."""
    reach, largest = log_forget, log_input
    if resets is not None:
        # What a reset empties has no weight, so its first token's own is the largest.
        reach = reach.masked_fill(resets[..., None], -torch.inf)
    t, by = reach.shape[1], 1
    while by < t:
        earlier = torch.maximum(largest[:, by:], largest[:, :-by] + reach[:, by:])
        reach = torch.cat([reach[:, :by], reach[:, by:] + reach[:, :-by]], 1)
        largest = torch.cat([largest[:, :by], earlier], 1)
        by *= 2
    return torch.maximum(largest, reach + first[:, None])

"""The matrix mixer: one shell of maps, convolution and gate around a matrix of any of seven structures."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._matrix_structures import STRUCTURES, build_structure
from hippodrome.backbones._not_causal import NotCausal
from hippodrome.backbones._pieces import CenteredConv, unpack
from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.mixers.base import ParameterGroup, check_word
from hippodrome.shapes import Resets, Sequence, TimeSteps


class MatrixMixer(NotCausal):
    """[z | v g | s] = in_proj(x); v, g = conv of [v g] around each token; y = M(g, s) silu(v) in each head;
    out_proj(w RMS(y) silu(z)).

    Hwang, Lahoti, Dao, Gu 2024, "Hydra: bidirectional state space models through generalized matrix mixers",
    arXiv 2407.09941: mixing along time is a product with a matrix, and mixers differ in its structure (see
    ``_matrix_structures``). All else is the same, so that a race between structures compares matrices. The
    quasiseparable one with directions apart is ``hydra``.

    A data-dependent matrix is made of the tokens and fits any number of them. A fixed one is learned, place
    by place, and refuses rows longer than ``max_length``. In packed rows each piece is mixed by a matrix of
    its own: there pieces are laid out as rows, whose number depends on the values of ``resets``.

    Args:
        d_model: channels in and out.
        structure: "dense" (which is fixed), "toeplitz", "vandermonde", "cauchy", "low_rank", "attention" or
            "quasiseparable".
        data_dependent: whether the matrix is made of the tokens.
        max_length: the most tokens of a piece where the matrix is fixed.
        d_state: numbers of a token's query and of its key in each head; "dense" and "toeplitz" have none.
        taps: of the convolution, odd.
        expand: channels of all heads together as a multiple of d_model.
        head_dim: channels of a head; None takes 64, or the largest even divisor below it.
        chunk: tokens of a block in the quasiseparable product; changes speed, never the result.

    Raises:
        ValueError: an unknown structure, one that is dense and data-dependent, a head_dim that does not
            divide expand * d_model, an even number of taps, or sizes below one.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        structure: str = "quasiseparable",
        data_dependent: bool = True,
        max_length: int = 1024,
        d_state: int = 16,
        taps: int = 7,
        expand: int = 2,
        head_dim: int | None = None,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_word("MatrixMixer", "structure", structure, STRUCTURES)
        if structure == "dense" and data_dependent:
            raise ValueError(
                "A dense matrix made of the tokens would need as many numbers of each as there are tokens; "
                "got structure='dense' with data_dependent=True. Set data_dependent=False, or take another "
                "structure."
            )
        if max_length < 1 or d_state < 1:
            raise ValueError(f"Sizes are 1 or more; got max_length={max_length}, d_state={d_state}.")
        inner = expand * d_model
        head_dim = head_size(inner) if head_dim is None else head_dim
        check_divides("head_dim", head_dim, "expand * d_model", inner)
        self.d_model, self.data_dependent, self.max_length = d_model, data_dependent, max_length
        self.heads = inner // head_dim
        self.matrix = build_structure(
            structure, self.heads, d_state, data_dependent, max_length, inner, chunk
        )
        given = self.matrix.channels if data_dependent else 0
        self.parts = [inner, inner + given, self.matrix.steps]
        self.inner_parts = [inner, given]
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.conv1d = CenteredConv(inner + given, taps)
        self.places = None if data_dependent else nn.Parameter(self.matrix.first(max_length))
        self.norm = GatedRMSNorm(inner, before_gate=True)
        self.out_proj = Projection(inner, d_model, bias=False)

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence; the state handed back is empty.

        Raises:
            ValueError: a state or dt is given, or a piece is longer than a fixed matrix.
        """
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        z, v, given = self.drive(x, resets)
        if resets is None:
            y = self.mixed(v, given)
        else:
            at, lengths, inside = _laid_out(resets)
            # Pieces follow each other as their tokens do in the flattened rows.
            y = self.mixed(*_pieces(v, given, at, inside), lengths)[inside].view(v.shape)
        return self.out_proj(self.norm(y.to(x.dtype), z)), ()

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """M of each head, diagonal and all."""
        self.check_call(x, None, resets)
        (b, t, _), (_, v, given) = x.shape, self.drive(x, resets)
        if resets is None:
            return self._of(self.matrix.matrix, v, given, None).expand(b, -1, -1, -1)
        at, lengths, inside = _laid_out(resets)
        M = self._of(self.matrix.matrix, *_pieces(v, given, at, inside), lengths)
        both = (inside[:, :, None] & inside[:, None])[:, None]
        M = torch.where(both, M, 0.0).transpose(0, 1)
        row, column = at[:, :, None].expand(-1, -1, at.shape[1]), (at % t)[:, None].expand_as(M[0])
        whole = M.new_zeros(self.heads, b * t, t)
        for head, own in zip(whole, M, strict=True):
            head.index_put_((row, column), own, accumulate=True)
        return whole.unflatten(1, (b, t)).transpose(0, 1)

    def drive(
        self, x: Sequence, resets: Resets | None = None
    ) -> tuple[Float[Tensor, "b t e"], Float[Tensor, "b t e"], Float[Tensor, "b t c"] | None]:
        """The gate, what is mixed, and what makes the matrix; None where that is fixed."""
        z, mixed, steps = self.in_proj(x).split_with_sizes(self.parts, -1)
        v, given = self.conv1d(mixed, resets).split_with_sizes(self.inner_parts, -1)
        if not self.data_dependent:
            return z, F.silu(v), None
        given = F.silu(given) if self.matrix.activated else given
        return z, F.silu(v), torch.cat([given, steps], -1) if self.matrix.steps else given

    def mixed(self, v: Tensor, given: Tensor | None, lengths: Tensor | None = None) -> Tensor:
        """M v over rows that end at their lengths, (b, t, e) to the same, in float32 at least."""
        return self._of(self.matrix.mix, v, given, lengths).flatten(-2)

    def _of(
        self, made: Callable[..., Tensor], v: Tensor, given: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        """What the structure makes of heads (b, t, h, p) and of what is given, learned or not."""
        t = v.shape[1]
        if given is None:
            assert self.places is not None  # what is not made of tokens is learned
            if t > self.max_length:
                raise ValueError(
                    f"A fixed mixing matrix has a row for each of max_length = {self.max_length} places; got "
                    f"a piece of {t} tokens. Set max_length, or data_dependent=True."
                )
            given = self.places[None, :t]
        wide = torch.promote_types(v.dtype, torch.float32)
        with torch.autocast(v.device.type, enabled=False):
            heads = v.to(wide).unflatten(-1, (self.heads, -1))
            return made(heads, given.to(wide), lengths)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the structure; places do not decay."""
        places = [] if self.places is None else [ParameterGroup([self.places], decay=False)]
        return [*self.matrix.parameter_groups(), *places]

    @classmethod
    def example(cls) -> "MatrixMixer":
        """A small instance."""
        return cls(8, d_state=2, head_dim=4, chunk=4)


def _laid_out(resets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the tokens of each piece lie, how many there are, and which places of a row hold one."""
    at, lengths = unpack(resets)
    return at, lengths, torch.arange(at.shape[1], device=resets.device) < lengths[:, None]


def _pieces(v: Tensor, given: Tensor | None, at: Tensor, inside: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pieces as rows: what is mixed, zero behind their ends, and what makes the matrix."""
    rows = torch.where(inside[..., None], v.flatten(0, 1)[at], 0.0)
    return rows, None if given is None else given.flatten(0, 1)[at]

"""Softmax attention of every token over all tokens of its row: the mixer of transformer encoders."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.projection import Projection
from hippodrome.mixers import _attention as engine
from hippodrome.shapes import Resets, Sequence, TimeSteps


class FullAttention(NotCausal):
    """o_t = sum_s softmax_s(q_t . k_s / sqrt(e)) v_s over all tokens s of the piece of t; out_proj(o).

    Vaswani et al. 2017, arXiv 1706.03762, equation 1 and section 3.2.2; the layer of
    ``torch.nn.MultiheadAttention``. ``attention`` is the causal one. Without ``rope`` the order of tokens
    does not show.

    Args:
        d_model: channels in and out.
        heads: None takes heads of 64 channels, or the largest even size below that divides.
        bias: whether queries, keys, values and the output have biases.
        rope: whether rotary positions (Su et al. 2021, arXiv 2104.09864) turn queries and keys, counted from
            the first token of a piece.
        dropout: chance that a weight of the softmax is dropped in training.

    Raises:
        ValueError: heads do not divide d_model, or an odd number of channels is to be turned.
    """

    def __init__(
        self,
        d_model: int,
        heads: int | None = None,
        bias: bool = True,
        rope: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        heads = max(1, d_model // head_size(d_model)) if heads is None else heads
        check_divides("heads", heads, "d_model", d_model)
        size = d_model // heads
        if rope and size % 2:
            raise ValueError(
                f"Rotary positions turn pairs of channels; got {d_model} channels in {heads} heads, {size} "
                f"each. Choose other heads, or rope=False."
            )
        self.d_model, self.heads, self.size, self.rope = d_model, heads, size, rope
        self.in_proj = Projection(d_model, 3 * d_model, bias=bias)
        self.dropout = dropout
        self.out_proj = Projection(d_model, d_model, bias=bias)
        nn.init.xavier_uniform_(self.in_proj.weight)
        if bias:
            nn.init.zeros_(self.in_proj.bias)

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence; the state handed back is empty."""
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        q, k, v, mask = self._drive(x, resets)
        drop = self.dropout if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=drop)
        return self.out_proj(y.transpose(1, 2).flatten(2)), ()

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """The weights of the softmax, which here are not hidden."""
        self.check_call(x, None, resets)
        q, k, _, mask = self._drive(x, resets)
        wide = torch.promote_types(x.dtype, torch.float32)
        scores = q.to(wide) @ k.to(wide).transpose(-1, -2) * self.size**-0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def _drive(
        self, x: Tensor, resets: Tensor | None
    ) -> tuple[Float[Tensor, "b h t e"], Float[Tensor, "b h t e"], Float[Tensor, "b h t e"], Tensor | None]:
        """Queries, keys, values, and the mask (b, 1, t, t) of the tokens that hear each other."""
        q, k, v = self.in_proj(x).unflatten(-1, (3 * self.heads, self.size)).chunk(3, -2)
        marks = x.new_zeros(1, x.shape[1], dtype=torch.bool) if resets is None else resets
        if self.rope:
            number, _ = engine.stretches(marks, marks.new_zeros(len(marks), dtype=torch.int64))
            q, k = engine.rotate(q, number), engine.rotate(k, number)
        mask = None
        if resets is not None:
            piece = resets.cumsum(1)
            mask = (piece[:, :, None] == piece[:, None])[:, None]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask

    @classmethod
    def example(cls) -> "FullAttention":
        """A small instance."""
        return cls(8, heads=2)

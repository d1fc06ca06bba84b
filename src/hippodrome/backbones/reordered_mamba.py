"""Mamba over tokens in the order of their learned importance: the least important first."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.layers.projection import Projection
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.mamba import Mamba
from hippodrome.shapes import Resets, Sequence, TimeSteps


class ReorderedMamba(NotCausal):
    """s_t = w . dt_t scores each token by its raw step sizes; the tokens, gates included, are sorted by the
    score, softly: x <- P x with P_ij = softmax_j(-|sort(s)_i - s_j| / temperature); Mamba reads them so.

    Vo, Pham, Tong, Nguyen 2025, "Demystifying the token dynamics of deep selective state space models",
    arXiv 2410.03292, the second refinement; the relaxed sort is that of Prillo, Eisenschlos 2020, "SoftSort",
    arXiv 2006.16038, equation 4. As published what is read stays in the new order; ``restore`` hands every
    token its own back, by the transpose of P with its rows scaled to one. It costs a t by t matrix, and every
    token may go anywhere, so it is not causal; the authors use it in one layer of a stack. Step sizes, B and
    C are made anew of the sorted tokens.

    Args:
        d_model: channels in and out.
        d_state: n of Mamba.
        taps: of its short convolution, behind which tokens are sorted.
        expand: channels of its recurrence as a multiple of d_model.
        dt_rank: rank of its map to the step sizes; None takes d_model / 16, rounded up.
        temperature: of the softmax; towards zero P is the permutation that sorts.
        restore: whether outputs go back to their tokens' places.

    Raises:
        ValueError: a temperature that is not positive.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        taps: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        temperature: float = 1.0,
        restore: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"the temperature of a soft sort is above zero; got {temperature}. Take 1.")
        self.d_model, self.temperature, self.restore = d_model, temperature, restore
        self.mamba = Mamba(d_model, d_state, taps, expand, dt_rank)
        self.score = Projection(self.mamba.dt_proj.out_features, 1, bias=False)

    @property
    def out_proj(self) -> nn.Module:
        """The map that writes into the residual stream: Mamba's."""
        return self.mamba.out_proj

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence, each piece of a packed row sorted by itself; the state handed back is empty."""
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        inner, z = self.mamba.in_proj(x).chunk(2, -1)
        inner = self.mamba.conv1d(inner, None, resets)[0]
        P = self.permutation(inner, resets).to(inner.dtype)
        y = self.mamba.selective(P @ inner, P @ z, resets=resets)[0]
        if self.restore:
            back = P.transpose(1, 2)
            y = (back / back.sum(-1, keepdim=True)) @ y
        return self.mamba.out_proj(y), ()

    def permutation(self, inner: Float[Tensor, "b t e"], resets: Tensor | None) -> Float[Tensor, "b t t"]:
        """P of convolved tokens: row i is what the i-th place of the new order takes from each token."""
        low = self.mamba.select(inner)[0]
        raw = self.mamba.dt_proj(low) + self.mamba.dt_proj.bias
        s = self.score(raw).squeeze(-1)
        s = s.to(torch.promote_types(s.dtype, torch.float32))
        piece = torch.zeros_like(s, dtype=torch.int64) if resets is None else resets.cumsum(1)
        order = s.argsort(1)
        # Pieces stay where they are: tokens are sorted by score, then, in that order, by piece.
        order = order.gather(1, piece.gather(1, order).argsort(dim=1, stable=True))
        distance = (s.gather(1, order)[:, :, None] - s[:, None]).abs() / self.temperature
        apart = piece[:, :, None] != piece[:, None]
        return distance.neg().masked_fill(apart, -torch.inf).softmax(-1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Mamba's."""
        return self.mamba.parameter_groups()

    @classmethod
    def example(cls) -> "ReorderedMamba":
        """A small instance."""
        return cls(8, d_state=4)

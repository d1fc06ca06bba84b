"""The head of a forecaster whose backbone runs on in a closed loop, and what helps to train it."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection


class RollOut(nn.Module):
    """value = w gelu(y) + bias for every output y of the closed loop, which has no step of its own size.

    Zhang, Saab, Poli, Dao, Goel, Ré 2023, arXiv 2303.09489, section 3.

    Args:
        d_model: channels of the backbone.
        dropout: chance that a channel is dropped in training.
    """

    def __init__(self, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = Projection(d_model, 1)

    def forward(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens"]:
        """One value for each token."""
        return self.linear(self.dropout(F.gelu(y)))[..., 0]

    def aids(
        self, trace: Any, values: Float[Tensor, "r t"], known: Float[Tensor, "r t"], start: int
    ) -> tuple[Tensor, Tensor]:
        """Two errors over the past, from token ``start`` on, of a backbone's ``trace``.

        The open loop's: the mean square of what each token says of the next value, where that is ``known``
        (its weight in the mean; 0 where it is missing). The next input's: the mean square of what the
        decoder's input was taken to be less what it was, over the mean square of that, so that nothing is won
        by making inputs small.
        """
        said = self(trace.outputs[:, start:-1])
        weight = known[:, start + 1 :]
        error = (said - values[:, start + 1 :]).square().mul(weight).sum()
        open_loop = error / weight.count_nonzero().clamp(min=1)
        wide = torch.promote_types(trace.inputs.dtype, torch.float32)
        inputs, predicted = trace.inputs[:, start + 1 :].to(wide), trace.predicted[:, start:-1].to(wide)
        apart = (predicted - inputs).square().mean() / inputs.square().mean().clamp(min=1e-12)
        return open_loop, apart

"""Learned step sizes: their first values, and the low-rank map whose bias the scan adds."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits.steps import inverse_softplus, log_uniform
from hippodrome.ops.linear import linear


def initial_step_bias(
    channels: int, dt_min: float = 1e-3, dt_max: float = 0.1, dt_floor: float = 1e-4
) -> Float[Tensor, "d"]:
    """Biases b with softplus(b) log-uniform between dt_min and dt_max, at least dt_floor, one a channel.

    Gu, Dao 2023, arXiv 2312.00752, section 3.6.

    Raises:
        ValueError: not 0 < dt_min <= dt_max.
    """
    sizes = log_uniform(channels, dt_min, dt_max).clamp(min=dt_floor)
    return inverse_softplus(sizes).to(torch.get_default_dtype())


class StepProjection(nn.Linear):
    """x W^T, without the bias that it holds: the scan adds that in float32, whatever the precision here.

    The weight starts uniform within rank^-1/2, the bias as ``initial_step_bias`` says.
    """

    def __init__(self, rank: int, channels: int, dt_min: float, dt_max: float, dt_floor: float) -> None:
        super().__init__(rank, channels)
        with torch.no_grad():
            self.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.bias.copy_(initial_step_bias(channels, dt_min, dt_max, dt_floor))

    def forward(self, x: Float[Tensor, "*tokens r"]) -> Float[Tensor, "*tokens d"]:
        """The product alone."""
        return linear(x, self.weight)

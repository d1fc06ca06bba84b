"""A linear map from the look-back to the horizon, of a window split into moving average and remainder."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Shortcut(nn.Module):
    """W_m m + b_m and W_r (x - m) + b_r, m the moving average of the window x, its ends repeated outwards.

    Zeng, Chen, Zhang, Xu 2022, "Are transformers effective for time series forecasting?", arXiv 2205.13504,
    section 4 (DLinear; with an average over one step, which leaves nothing over, NLinear's single map). The
    weights start at 1 / look_back, as in public code of it.

    Args:
        look_back: steps of the window.
        horizon: steps of the forecast.
        average: steps of the moving average, odd.

    Raises:
        ValueError: an average over an even number of steps, or none.
    """

    def __init__(self, look_back: int, horizon: int, average: int = 25) -> None:
        super().__init__()
        if average < 1 or average % 2 == 0:
            raise ValueError(
                f"the moving average of a shortcut is over an odd number of steps, so that it has a middle; "
                f"got {average}. Take {max(1, average + 1)}."
            )
        self.average = average
        self.trend = nn.Linear(look_back, horizon)
        self.remainder = nn.Linear(look_back, horizon) if average > 1 else None
        for part in (self.trend, self.remainder):
            if part is not None:
                nn.init.constant_(part.weight, 1 / look_back)

    def forward(
        self, window: Float[Tensor, "b c t"]
    ) -> tuple[Float[Tensor, "b c horizon"], Float[Tensor, "b c horizon"] | None]:
        """The forecast of the moving average, and that of the remainder where there is one."""
        if self.remainder is None:
            return self.trend(window), None
        side = self.average // 2
        longer = F.pad(window, (side, side), mode="replicate")
        smooth = F.avg_pool1d(longer, self.average, stride=1)
        return self.trend(smooth), self.remainder(window - smooth)

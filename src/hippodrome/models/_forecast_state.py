"""What a forecaster carries from one call to the next."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class ForecastState(NamedTuple):
    """What a stream of observations leaves behind: all that the next forecast needs, of v variates and
    moving covariates in r rows of tokens a series.

    ``mean`` and ``spread`` normalize; they come from the first ``look_back`` steps of the stream and stay,
    which is what ``started`` (0 or 1) tells.
    """

    backbone: tuple
    """Of a causal backbone, b * r rows; empty of another."""
    tail: Float[Tensor, "b overlap v"]
    """Normalized values that the next patch shares with the last one."""
    tokens: Float[Tensor, "b r window d"]
    """The tokens of the look-back, for a backbone that reads them anew each time; else none."""
    features: Float[Tensor, "b c patches d"]
    """What the backbone said of the patches that the head reads."""
    window: Float[Tensor, "b look_back c"]
    """The normalized look-back, where there is a shortcut; else nothing."""
    context: Float[Tensor, "b e"]
    """What the static covariates add to each token."""
    mean: Float[Tensor, "b c"]
    spread: Float[Tensor, "b c"]
    started: Float[Tensor, "b"]

    @property
    def running(self) -> bool:
        """Whether every row has seen its first look-back."""
        return bool(self.started.all())


def is_fresh(state: tuple | None) -> bool:
    """Whether a state, None for none, stands before the first observation of some row."""
    return state is None or not ForecastState(*state).running

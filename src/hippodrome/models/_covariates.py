"""What a forecaster knows beside the series: covariates of the past, of the future, and those that stay."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Covariates(nn.Module):
    """A term for every token, and one for every step ahead.

    A token gets W_p of the covariates of its patch and W_s of the static ones; step h of the horizon gets
    w gelu(W_k z_h + W_f features), z_h what is known of that step. All variates share all weights. Values are
    standardized by the train statistics; what is missing counts as the mean.

    Args:
        d_model: channels of a token.
        patch: steps a token.
        observed: covariates seen in the past alone.
        known: covariates known ahead too.
        static: covariates that do not change.
        location: means of observed, then known covariates; None for zeros.
        scale: their deviations; None for ones.
        static_location: means of the static ones.
        static_scale: their deviations.
        tokens: whether covariates of the past are a term of the tokens; otherwise they are rows of their own.

    Raises:
        ValueError: statistics for another number of covariates.
    """

    location: Tensor
    scale: Tensor
    static_location: Tensor
    static_scale: Tensor

    def __init__(
        self,
        d_model: int,
        patch: int,
        observed: int = 0,
        known: int = 0,
        static: int = 0,
        location: list[float] | None = None,
        scale: list[float] | None = None,
        static_location: list[float] | None = None,
        static_scale: list[float] | None = None,
        tokens: bool = True,
    ) -> None:
        super().__init__()
        self.observed, self.known, self.static = observed, known, static
        self.context = d_model if static else 0
        moving = observed + known
        self.past = nn.Linear(patch * moving, d_model, bias=False) if moving and tokens else None
        self.fixed = nn.Linear(static, d_model, bias=False) if static else None
        self.ahead = nn.Linear(known, d_model) if known else None
        self.features = nn.Linear(d_model, d_model, bias=False) if known else None
        self.effect = nn.Linear(d_model, 1, bias=False) if known else None
        for name, count, center, spread in (
            ("", moving, location, scale),
            ("static_", static, static_location, static_scale),
        ):
            self.register_buffer(f"{name}location", _filled(center, count, 0.0, name + "location"))
            sizes = _filled(spread, count, 1.0, name + "scale")
            self.register_buffer(f"{name}scale", torch.where(sizes > 0, sizes, 1.0))

    def scaled(self, values: Float[Tensor, "b t m"]) -> Float[Tensor, "b t m"]:
        """Moving covariates, standardized, zero where they are missing."""
        return torch.nan_to_num((values - self.location) / self.scale, nan=0.0)

    def fixed_term(self, static: Float[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        """What the static covariates add to every token."""
        assert self.fixed is not None
        return self.fixed(torch.nan_to_num((static - self.static_location) / self.static_scale, nan=0.0))

    def past_term(self, pieces: Float[Tensor, "b patches m patch"]) -> Float[Tensor, "b patches d"]:
        """What the covariates of each patch add to its token."""
        assert self.past is not None
        return self.past(pieces.flatten(2))

    def ahead_term(
        self, known: Float[Tensor, "b horizon k"], features: Float[Tensor, "b c d"]
    ) -> Float[Tensor, "b c horizon"]:
        """What is added to each step of the forecast."""
        assert self.ahead is not None
        assert self.features is not None
        assert self.effect is not None
        values = (known - self.location[self.observed :]) / self.scale[self.observed :]
        told = self.ahead(torch.nan_to_num(values, nan=0.0))
        return self.effect(F.gelu(told[:, None] + self.features(features)[:, :, None]))[..., 0]


def _filled(values: list[float] | None, count: int, otherwise: float, name: str) -> Tensor:
    if values is not None and len(values) != count:
        raise ValueError(
            f"{name} holds one number for each of the {count} covariates; got {len(values)}. Take the train "
            f"statistics of the same covariates."
        )
    return torch.tensor([otherwise] * count if values is None else values, dtype=torch.get_default_dtype())

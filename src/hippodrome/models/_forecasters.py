"""The kinds of model that forecast series, which the jobs around them treat alike."""

from hippodrome.models.forecasting import ForecastingModel
from hippodrome.models.token_forecasting import TokenForecastingModel

AnyForecaster = ForecastingModel | TokenForecastingModel
FORECASTING = ("forecasting", "token_forecasting")
"""The kinds of their specs."""

__all__ = ["FORECASTING", "AnyForecaster"]

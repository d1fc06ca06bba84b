"""The page of a forecast: what its sentences say."""

import pandas as pd

from hippodrome.estimators import forecast_report


def test_a_verdict_beside_a_forecast_without_error_has_no_percent() -> None:
    errors = pd.DataFrame({"unique_id": "y", "metric": ["mae"], "s4d": [0.1], "Naive": [0.0]})
    said = forecast_report._verdict(errors, ["s4d", "Naive"], 1, 1, 24)
    assert said[0] == "s4d: its mean absolute error over 1 window is 0.1, more than that of Naive (0)."
    assert said[1].startswith("On this evidence take Naive")
    errors["Naive"] = 0.2
    said = forecast_report._verdict(errors, ["s4d", "Naive"], 2, 1, 24)
    assert said == ["s4d: its mean absolute error over 2 windows is 0.1, 50 % less than that of Naive (0.2)."]


def test_what_cannot_be_measured_is_a_dash() -> None:
    assert forecast_report._number(float("inf"), "mase") == "-"
    assert forecast_report._number(0.8123, "coverage-80") == "81.2 %"

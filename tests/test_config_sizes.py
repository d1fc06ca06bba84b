"""Sizes that are filled in: of grids where there is no task, of variates from the task."""

import pytest

from hippodrome import config
from hippodrome.config import published


@pytest.mark.parametrize(
    ("kind", "width", "sizes"),
    [("conv_s5", 32, [4, 4]), ("conv_s5", 12, [2, 2]), ("conv_lstm", 9, [1, 1]), ("s4nd", 9, [4, 6])],
)
def test_a_token_is_a_small_frame_or_a_row_a_grid(kind: str, width: int, sizes: list[int]) -> None:
    assert config.with_small_sizes(kind, None, width, 24) == {kind: {"sizes": sizes}}
    config.build({"kind": kind, "d_model": width, "sizes": sizes}, "mixers")


def test_what_is_given_stays_and_layers_of_two_directions_share_it() -> None:
    given = {"conv_s5": {"sizes": [2, 3]}, "s4d": {"d_state": 4}}
    assert config.with_small_sizes("bi-conv_s5+s4d", given, 12, 24) == given
    assert config.with_small_sizes("bi-conv_s5+s4d", None, 12, 24) == {"conv_s5": {"sizes": [2, 2]}}


def test_a_backbone_over_the_variates_is_told_how_many_a_series_has() -> None:
    facts = {"channels": 7, "observed": 2, "known": 1}
    assert config.variates("forecasting", facts) == 7
    assert config.variates("forecasting", {**facts, "covariates": "variates"}) == 10
    assert config.variates("classification", facts) is None
    assert config.with_sizes("tsm2:mamba", None, None, 7) == {"tsm2": {"variates": 7}}
    assert config.with_sizes("tsm2:mamba", {"tsm2": {"variates": 3}}, None, 7) == {"tsm2": {"variates": 3}}
    assert config.with_sizes("mamba", None, None, 7) == {}


def test_a_recipe_of_series_fits_itself_to_the_data() -> None:
    recipe = published.find("tsm2_etth1")
    made = published.spec_of(recipe, "forecasting", {"channels": 3}, {}, own={"patch": 8})
    assert (made["backbone"]["variates"], made["patch"]) == (3, 8)
    assert recipe.model.stack()["variates"] == 7
    settings = {"shortcut": 25, "normalization": "none"}
    linear = recipe.model.model_copy(update={"pattern": None, "forecasting": settings})
    made = published.spec_of(recipe.model_copy(update={"model": linear}), "forecasting", {"channels": 3}, {})
    assert made == {"backbone": None, **settings}

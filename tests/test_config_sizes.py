"""Sizes of grids that are filled in where there is no task."""

import pytest

from hippodrome import config


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

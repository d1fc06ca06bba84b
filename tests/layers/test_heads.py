"""How widths are cut into heads."""

import pytest

from hippodrome.layers.heads import check_divides, head_size


def test_head_size_is_the_largest_even_divisor() -> None:
    assert [head_size(w) for w in (768, 72, 2, 136, 130)] == [64, 36, 2, 34, 26]
    assert head_size(256, at_most=48) == 32


def test_odd_widths_and_uneven_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="must be even; got 9"):
        head_size(9)
    with pytest.raises(ValueError, match=r"got 4 for 6. Take one of 1, 2, 3, 6\."):
        check_divides("heads", 4, "d_model", 6)

"""Charts: well-formed, in the page's own colours, and unable to clash with another chart on the page."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hippodrome.analyze import figures

NAMES = ["mamba2", "s4d", "mamba2x3+attention", "gru"]
LOOK = figures.styles(NAMES)


def _all() -> dict[str, str]:
    x = np.arange(1, 20)
    return {
        "lines": figures.lines(
            [figures.Line(n, x, 1 / x + i) for i, n in enumerate(NAMES)],
            LOOK,
            title='Loss & "time" <s>',
            x="s",
            y="nats",
            rules={"unigram": 2.0},
        ),
        "log": figures.lines(
            [figures.Line("s4d", [64, 256, 1024], [0.1, float("nan"), 3], True)],
            LOOK,
            title="forward",
            x="tokens",
            y="s",
            log_x=True,
            log_y=True,
            x_ticks=[64, 256, 1024],
        ),
        "scatter": figures.scatter(
            [figures.Point(n, 100.0, 1.0, 0.1) for n in NAMES], LOOK, title="cost", x="tokens/s", y="nats"
        ),
        "forecast": figures.forecast(
            np.zeros(9),
            np.ones(4),
            [figures.Band("s4d", np.ones(4), np.zeros(4), np.ones(4))],
            LOOK,
            title="a",
            x="steps",
            y="value",
        ),
        "matrix": figures.matrix([[3, 1], [0, 4]], ["yes", "no"], LOOK["s4d"].colour, title="confusion"),
    }


@pytest.fixture(scope="module")
def charts() -> dict[str, str]:
    return _all()


def test_each_is_one_svg_element(charts: dict[str, str]) -> None:
    for name, text in charts.items():
        root = ElementTree.fromstring(text)
        assert root.tag == "svg", name
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.get("width") is None
        assert root.get("viewBox")


def test_nothing_is_fetched_and_no_id_is_used_twice(charts: dict[str, str]) -> None:
    page = "".join(charts.values())
    assert "http" not in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert reference in ids
    # The same marker may be drawn in several charts; then its shape is the same too.
    shapes = dict(re.findall(r'<path id="([^"]*)" d="([^"]*)"', page))
    for name, shape in re.findall(r'<path id="([^"]*)" d="([^"]*)"', page):
        assert shapes[name] == shape


def test_ink_is_the_pages_own_and_text_stays_text(charts: dict[str, str]) -> None:
    for text in charts.values():
        assert "currentColor" in text
        assert "#010203" not in text
        assert "#040506" not in text
    assert ">unigram</text>" in charts["lines"]
    assert ">mamba2x3+attention</text>" in charts["scatter"]


def test_the_same_drawing_twice_is_the_same_text(charts: dict[str, str]) -> None:
    assert _all() == charts


def test_styles_differ_between_any_two_of_many_names() -> None:
    many = figures.styles([f"m{i}" for i in range(24)])
    assert len(set(many.values())) == 24


def test_names_of_points_on_top_of_each_other_are_written_apart(charts: dict[str, str]) -> None:
    places = re.findall(
        r'transform="translate\(([\d.]+) ([\d.]+)\)[^>]*>(?:mamba2|s4d|gru|mamba2x3\+attention)<',
        charts["scatter"],
    )
    if not places:
        places = re.findall(
            r'x="([\d.]+)" y="([\d.]+)"[^>]*>(?:mamba2|s4d|gru|mamba2x3\+attention)<', charts["scatter"]
        )
    assert len(places) == 4
    assert len(set(places)) == 4


@pytest.mark.filterwarnings("error")
def test_a_name_as_long_as_a_hybrids_pattern_leaves_room_for_the_points() -> None:
    names = ["+".join(["mamba", "mlp", "mamba", "moe"] * 4), "gru"]
    assert len(figures.shortened(names[0])) == 36
    assert figures.shortened("mamba2x4+attention+mamba2x3") == "mamba2x4+attention+mamba2x3"
    points = [figures.Point(n, i + 1.0, 1.0) for i, n in enumerate(names)]
    chart = figures.scatter(points, figures.styles(names), title="cost", x="s", y="nats")
    assert "mamba+mlp+mamba+mo…" in chart


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (950, "950"), (1500, "1.5k"), (2e6, "2M"), (0.03, "0.03"), (2e-5, "2e-05")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert figures.short(value) == text

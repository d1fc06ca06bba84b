"""The report: one file, nothing fetched, text escaped, one colour for a model everywhere."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from race_example import example

from hippodrome.race import report
from hippodrome.race.charts import looks, swatch
from hippodrome.race.result import RaceResult
from hippodrome.race.verdict import verdict

VOID = {"meta", "br", "path", "circle", "use", "rect", "line", "polyline", "polygon", "image", "stop"}


class _Balance(HTMLParser):
    """Every element that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"{tag} at {self.getpos()}")


@cache
def page(kind: str, seeds: int = 3) -> tuple[RaceResult, str]:
    result = example(kind, seeds)
    result.verdict = verdict(result)
    return result, report.render(result)


@pytest.fixture(scope="module", params=["language", "classification", "forecasting"])
def rendered(request: pytest.FixtureRequest) -> tuple[RaceResult, str]:
    return page(request.param)


def test_the_page_is_whole_and_needs_no_network(rendered: tuple[RaceResult, str]) -> None:
    _, text = rendered
    balance = _Balance()
    balance.feed(text)
    assert balance.faults == []
    assert balance.open == []
    assert "<script" not in text
    assert "<link" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)
    for reference in re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', text):
        assert "".join(reference).startswith("#")
    assert len(text) < 1_000_000


def test_all_that_was_asked_for_is_there(rendered: tuple[RaceResult, str]) -> None:
    result, text = rendered
    for sentence in result.verdict[1:]:
        assert sentence.replace("'", "&#39;").replace("&#39;", "'")[:40] in text.replace("&#39;", "'")
    for standing in result.standings:
        assert standing.name in text
    for word in ("parameters", "state of", "tokens/s", "memory", "one more", "beats at", "How they learned"):
        assert word in text
    for word in (
        "Cost against length",
        "Quality against cost",
        "All runs",
        "Machine",
        "Versions",
        result.command,
    ):
        assert word in text
    for name in result.naive:
        assert name in text
    assert "diverged" in text


def test_each_kind_shows_what_it_has() -> None:
    _, language = page("language")
    assert "<h2>Samples</h2>" in language
    assert "&lt;man&gt; &amp; his lord" in language
    assert "<h2>Confusion</h2>" not in language
    _, classes = page("classification")
    assert "Answers of mamba2 on test" in classes
    assert "<h2>Samples</h2>" not in classes
    _, series = page("forecasting")
    assert series.count("seasonal naive") > 3
    assert "The band is the 80 % interval." in series


def test_a_model_has_one_colour(rendered: tuple[RaceResult, str]) -> None:
    result, text = rendered
    look = looks(result)
    assert len({(s.colour, s.marker, s.dash) for s in look.values()}) == len(look)
    for name, style in look.items():
        assert swatch(style) in text, name
    # Ranks change nothing: the styles go by the names.
    turned = result.model_copy(update={"standings": result.standings[::-1]})
    assert looks(turned) == look


def test_one_seed_has_no_intervals() -> None:
    _, text = page("language", seeds=1)
    assert "±" not in text
    assert "no interval is known" in text


def test_it_is_written_in_one_piece(tmp_path: Path) -> None:
    result, text = page("language")
    place = report.write(result, tmp_path / "report.html")
    assert place.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_race_that_nobody_finished_has_a_report() -> None:
    result = example()
    result.standings = [s for s in result.standings if s.status != "finished"]
    result.winner, result.exhibits.samples = None, {}
    result.verdict = verdict(result)
    assert "Nobody finished" in report.render(result)

"""What the tests of the command line share: a runner, and one tiny trained model of each kind of task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hippodrome.cli import app

SMALL = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps", "--device", "cpu"]


class Answer:
    """What a verb said: exit code, standard output, standard error."""

    def __init__(self, words: list[str], stdin: str | None = None) -> None:
        result = CliRunner().invoke(app, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr

    def json(self) -> Any:
        """Standard output as the one JSON value it must be."""
        return json.loads(self.out)


@pytest.fixture
def cli() -> Callable[..., Answer]:
    """Runs a verb: ``cli("list", "mixers")``."""
    return lambda *words, stdin=None: Answer([str(word) for word in words], stdin)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some thousand letters."""
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("The quick brown fox jumps over the lazy dog.\n" * 120, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hourly series with a daily season."""
    path = tmp_path_factory.mktemp("table") / "power.csv"
    hours = np.arange(400)
    load, heat = np.sin(hours * np.pi / 12), np.cos(hours * np.pi / 12) + hours / 400
    rows = [
        f"2024-01-{1 + h // 24:02d} {h % 24:02d}:00,{a:.4f},{b:.4f}"
        for h, a, b in zip(hours, load, heat, strict=True)
    ]
    path.write_text("date,load,heat\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short series of two classes, up and down, as .ts with the test part beside it."""
    folder = tmp_path_factory.mktemp("labelled")
    head = "@problemName Slopes\n@timeStamps false\n@univariate true\n@equalLength true\n@seriesLength 8\n"
    head += "@classLabel true down up\n@data\n"
    generator = np.random.default_rng(0)
    for part, count in (("TRAIN", 24), ("TEST", 8)):
        lines = []
        for i in range(count):
            slope = 1 if i % 2 else -1
            values = slope * np.linspace(-1, 1, 8) + 0.1 * generator.standard_normal(8)
            lines.append(",".join(f"{v:.3f}" for v in values) + (":up" if i % 2 else ":down"))
        (folder / f"Slopes_{part}.ts").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return folder / "Slopes_TRAIN.ts"


def trained(source: Path, folder: Path, *more: str) -> Path:
    """A run folder of a model that saw two steps."""
    answer = Answer(["train", str(source), "--out", str(folder), *SMALL, "--json", *more])
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture(scope="session")
def language_run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model over bytes."""
    return trained(text_file, tmp_path_factory.mktemp("run") / "language", "-s", "data.length=32")


@pytest.fixture(scope="session")
def forecast_run(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forecaster of two variates, 24 hours from 48."""
    words = ["--look-back", "48", "--horizon", "24"]
    return trained(table_file, tmp_path_factory.mktemp("run") / "forecast", *words)


@pytest.fixture(scope="session")
def classify_run(labelled_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of slopes."""
    return trained(labelled_file, tmp_path_factory.mktemp("run") / "classify")

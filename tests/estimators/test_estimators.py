"""The estimators: frames and arrays in and out, parameters kept, save and load, sentences for mistakes."""

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hippodrome
from hippodrome.estimators import Classifier, Forecaster, Generator, load, pattern

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "model": "min_gru"}


def long_frame(rows: int = 120) -> pd.DataFrame:
    hours = pd.date_range("2024-01-01", periods=rows, freq="h")
    waves = {name: np.sin(np.arange(rows) / 3 + i) + i for i, name in enumerate(["north", "south"])}
    return pd.concat(
        [pd.DataFrame({"unique_id": name, "ds": hours, "y": wave}) for name, wave in waves.items()],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(horizon=5, look_back=16, quantiles=(0.1, 0.5, 0.9), **TINY).fit(long_frame())


@pytest.fixture(scope="module")
def classifier() -> tuple[Classifier, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    cases = [rng.normal(size=(rng.integers(5, 9), 2)) + (i % 2) for i in range(24)]
    labels = np.array([10 * (i % 2) for i in range(24)])
    return Classifier(**{**TINY, "budget": "40steps"}).fit(cases, labels), cases, labels


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(length=16, batch_size=4, **TINY).fit("The horse runs. " * 60)


@pytest.mark.parametrize("kind", [Forecaster, Classifier, Generator])
def test_arguments_are_kept_as_given_and_can_be_set(kind: type) -> None:
    made = kind(model="gru", lr=0.5)
    assert made.get_params()["model"] == "gru"
    assert set(made.get_params()) == set(inspect.signature(kind).parameters)
    assert kind(**made.get_params()).get_params() == made.get_params()
    assert made.set_params(width=16).width == 16
    assert "lr=0.5" in repr(made)
    with pytest.raises(ValueError, match="no parameter 'wdith'"):
        made.set_params(wdith=3)


@pytest.mark.parametrize(
    "call", [lambda: Forecaster().predict(long_frame()), lambda: Generator().generate("a")]
)
def test_what_has_learned_nothing_says_so(call) -> None:
    with pytest.raises(ValueError, match="learned nothing yet"):
        call()


def test_a_long_frame_gives_a_long_frame_with_quantiles(forecaster: Forecaster) -> None:
    found = forecaster.predict()
    columns = ["unique_id", "ds", "min_gru", "min_gru-lo-80", "min_gru-median", "min_gru-hi-80"]
    assert list(found.columns) == columns
    assert len(found) == 2 * 5
    north = found[found["unique_id"] == "north"]
    assert list(north["ds"]) == list(pd.date_range("2024-01-06", periods=5, freq="h"))
    assert (found["min_gru-lo-80"] <= found["min_gru-median"]).all()
    assert (found["min_gru-median"] <= found["min_gru-hi-80"]).all()


def test_a_shorter_series_and_another_frame_are_forecast_too(forecaster: Forecaster) -> None:
    frame = long_frame()
    found = forecaster.predict(frame[frame["unique_id"] == "south"].head(7))
    assert len(found) == 5
    assert np.isfinite(found["min_gru"]).all()


def test_a_wide_frame_gives_a_wide_frame() -> None:
    rows = 60
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024-01-31", periods=rows, freq="D"),
            "load": np.arange(rows, dtype=float),
            "oil": np.cos(np.arange(rows)),
        }
    )
    found = Forecaster(horizon=3, look_back=8, quantiles=(), **TINY).fit(frame).predict()
    assert list(found.columns) == ["ds", "load", "oil"]
    assert list(found["ds"]) == list(pd.date_range("2024-03-31", periods=3, freq="D"))
    # The point is near what was last seen: it is on the scale of the data, not normalized.
    assert (found["load"] > 30).all()


def test_monthly_stamps_go_on_by_months() -> None:
    months = pd.date_range("2015-01-01", periods=48, freq="MS")
    frame = pd.DataFrame({"unique_id": "a", "ds": months, "y": np.sin(np.arange(48))})
    found = Forecaster(horizon=2, look_back=8, **TINY).fit(frame).predict()
    assert list(found["ds"]) == [pd.Timestamp("2019-01-01"), pd.Timestamp("2019-02-01")]


def test_another_number_of_variates_is_refused(forecaster: Forecaster) -> None:
    frame = pd.DataFrame({"ds": pd.date_range("2024", periods=20, freq="h"), "a": 1.0, "b": 2.0})
    with pytest.raises(ValueError, match="learned series by unique_id; got columns 'ds', 'a', 'b'"):
        forecaster.predict(frame)


def test_a_model_over_a_grid_is_refused_by_its_reason() -> None:
    with pytest.raises(ValueError, match="conv_s5 runs over a grid"):
        Forecaster(horizon=5, look_back=16, **{**TINY, "model": "conv_s5"}).fit(long_frame())


def test_a_classifier_learns_lengths_and_labels(classifier) -> None:
    made, cases, labels = classifier
    chances = made.predict_proba(cases)
    assert chances.shape == (24, 2)
    np.testing.assert_allclose(chances.sum(1), 1)
    assert set(made.predict(cases)) <= {0, 10}
    assert made.predict(cases).dtype == labels.dtype
    assert made.score(cases, labels) > 0.8


def test_padding_of_shorter_sequences_changes_nothing(classifier) -> None:
    made, cases, _ = classifier
    alone = np.concatenate([made.predict_proba([case]) for case in cases[:5]])
    np.testing.assert_allclose(alone, made.predict_proba(cases[:5]), atol=1e-5)


def test_a_classifier_names_what_does_not_fit(classifier) -> None:
    made, cases, labels = classifier
    with pytest.raises(ValueError, match="sequence 1 has 3"):
        made.predict([cases[0], np.ones((4, 3))])
    with pytest.raises(ValueError, match="one label for each"):
        Classifier(**TINY).fit(cases, labels[:-1])
    with pytest.raises(ValueError, match="X is empty"):
        made.predict([])


def test_a_generator_goes_on_from_a_prompt(generator: Generator) -> None:
    text = generator.generate("The ", 12, seed=1)
    assert text == generator.generate("The ", 12, seed=1)
    assert len(text.encode()) >= 1
    stream = generator.stream("The ", seed=2)
    assert isinstance(next(stream), str)


@pytest.mark.parametrize("which", ["forecaster", "classifier", "generator"])
def test_saved_and_loaded_answers_are_the_same(which: str, request, tmp_path: Path) -> None:
    fitted = request.getfixturevalue(which)
    fitted = fitted[0] if isinstance(fitted, tuple) else fitted
    place = fitted.save(tmp_path / "kept")
    opened = load(place)
    assert type(opened) is type(fitted)
    assert opened.model == "min_gru"
    assert opened.width == 8
    if isinstance(fitted, Forecaster):
        pd.testing.assert_frame_equal(opened.predict(long_frame()), fitted.predict())
        with pytest.raises(ValueError, match="loaded"):
            opened.predict()
    elif isinstance(fitted, Classifier):
        _, cases, _ = request.getfixturevalue("classifier")
        np.testing.assert_array_equal(opened.predict(cases), fitted.predict(cases))
        assert opened.classes_.dtype == fitted.classes_.dtype
    else:
        assert opened.generate("The ", 8) == fitted.generate("The ", 8)
    with pytest.raises(ValueError, match="exists already"):
        fitted.save(place)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder"):
        load(tmp_path)
    (tmp_path / "race.json").write_text("{}")
    with pytest.raises(ValueError, match="no winner yet"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["a"] * 4, "a"),
        (["a", "a", "b", "a", "a", "b"], "ax2+b"),
        (["a", "b", "b", "b"], "a+bx3"),
        (["a", "b", "a", "b"], "a+b"),
    ],
)
def test_a_pattern_is_told_from_its_layers(layers: list[str], text: str) -> None:
    assert pattern(layers) == text


def test_the_package_offers_them_lazily() -> None:
    assert hippodrome.Forecaster is Forecaster
    assert hippodrome.load is load
    assert callable(hippodrome.race)
    assert {"race", "load", "Forecaster"} <= set(dir(hippodrome))
    with pytest.raises(AttributeError, match="it offers"):
        hippodrome.nothing  # noqa: B018

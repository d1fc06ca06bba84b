"""The forecaster: covariates, stamps, short series, warm starts, rolling out, mistakes."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.estimators import Forecaster, _described, load
from hippodrome.estimators._rolling import forecast

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "model": "min_gru", "look_back": 16}
ROWS = 60


def shops() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for i, name in enumerate(["north", "south", "west"]):
        price = rng.normal(size=ROWS)
        parts.append(
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": pd.date_range("2024-01-01", periods=ROWS, freq="h"),
                    "y": 100.0**i * (3 + np.sin(np.arange(ROWS) / 3) + price),
                    "price": price,
                    "rain": rng.normal(size=ROWS),
                    "kind": ["big", "small", "big"][i],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


FRAME = shops()
PAST = FRAME.groupby("unique_id").head(ROWS - 8)
AHEAD = FRAME.groupby("unique_id").tail(8)[["unique_id", "ds", "price"]]
AREA = pd.DataFrame({"unique_id": ["west", "north", "south"], "area": [3.0, 1.0, 2.0]})


@pytest.fixture(scope="module")
def told() -> Forecaster:
    made = Forecaster(horizon=4, observed=["rain"], known=["price"], static=["kind"], calendar=True, **TINY)
    return made.fit(PAST, AREA)


@pytest.fixture(scope="module")
def plain() -> Forecaster:
    return Forecaster(horizon=4, quantiles=(0.025, 0.1, 0.5, 0.9, 0.975), **TINY).fit(PAST)


def test_what_the_model_reads_is_what_the_frames_hold(told: Forecaster) -> None:
    """The same forecast from the network itself, handed arrays made by hand."""
    found = told.predict(X_df=AHEAD)
    assert len(found) == 3 * 4
    series, future = PAST[PAST["unique_id"] == "south"], AHEAD[AHEAD["unique_id"] == "south"].head(4)
    location, scale = series["y"].mean(), series["y"].std(ddof=0)

    def calendar(stamps: pd.Series) -> np.ndarray:
        at = stamps.dt
        parts = [at.hour / 23, at.dayofweek / 6, (at.day - 1) / 30, (at.dayofyear - 1) / 365]
        return np.stack(parts, 1) - 0.5

    past = np.concatenate(
        [
            ((series["y"] - location) / scale).to_numpy()[:, None],
            series[["rain", "price"]].to_numpy(),
            calendar(series["ds"]),
        ],
        1,
    )[-16:]
    known = np.concatenate([future[["price"]].to_numpy(), calendar(future["ds"])], 1)
    inputs = [torch.tensor(part[None], dtype=torch.float32) for part in (past, known, np.array([0, 1, 2]))]
    with torch.no_grad():
        outputs, _ = told.run_.model(inputs[0], known=inputs[1], static=inputs[2])
    expected = outputs[0, :, 0].numpy() * scale + location
    columns = ["min_gru", "min_gru-lo-80", "min_gru-median", "min_gru-hi-80"]
    np.testing.assert_allclose(found[found["unique_id"] == "south"][columns], expected, rtol=1e-4)


def test_order_and_other_rows_of_x_df_mean_nothing(told: Forecaster) -> None:
    mixed = pd.concat([AHEAD.sample(frac=1, random_state=0), PAST[["unique_id", "ds", "price"]].tail(3)])
    pd.testing.assert_frame_equal(told.predict(X_df=mixed), told.predict(X_df=AHEAD))
    fewer = told.predict(X_df=AHEAD.groupby("unique_id").head(2), h=2)
    assert fewer["ds"].tolist() == AHEAD.groupby("unique_id").head(2)["ds"].tolist()


def test_more_steps_are_rolled_out_from_the_point(plain: Forecaster) -> None:
    once, far = plain.predict(), plain.predict(h=11)
    assert far.groupby("unique_id").size().tolist() == [11, 11, 11]
    pd.testing.assert_frame_equal(far.groupby("unique_id").head(4).reset_index(drop=True), once)
    pd.testing.assert_frame_equal(
        plain.predict(h=3), once.groupby("unique_id").head(3).reset_index(drop=True)
    )
    # The second block by hand: the first one's point stands in the place of what was seen.
    later = pd.concat([PAST, once.rename(columns={"min_gru": "y"})])[["unique_id", "ds", "y"]]
    later = later.sort_values(["unique_id", "ds"]).reset_index(drop=True)
    second = plain.predict(later)
    for name, found in second.groupby("unique_id"):
        block = far[far["unique_id"] == name].iloc[4:8]
        assert found["ds"].tolist() == block["ds"].tolist()
        # Not closer: the scale of each series is that of a longer frame here, and windows have an epsilon.
        np.testing.assert_allclose(found["min_gru"], block["min_gru"], rtol=1e-3)
    with pytest.raises(ValueError, match="1 step or more; got h=0"):
        plain.predict(h=0)


def test_bands_are_picked_by_their_share(plain: Forecaster) -> None:
    everything = plain.predict()
    ends = ["-lo-95", "-lo-80", "-median", "-hi-80", "-hi-95"]
    assert list(everything.columns[2:]) == ["min_gru", *(f"min_gru{end}" for end in ends)]
    found = plain.predict(level=[80])
    assert list(found.columns[2:]) == [f"min_gru{end}" for end in ("", "-lo-80", "-median", "-hi-80")]
    pd.testing.assert_frame_equal(found, everything[found.columns])
    with pytest.raises(ValueError, match=r"0\.05 and 0\.95, and this forecaster has bands of 80, 95 %"):
        plain.predict(level=[80, 90])


def test_many_series_are_forecast_in_batches_as_each_alone(plain: Forecaster) -> None:
    many = pd.concat([PAST.assign(unique_id=PAST["unique_id"] + str(i), y=PAST["y"] + i) for i in range(250)])
    whole = plain.predict(many[["unique_id", "ds", "y"]])
    alone = plain.predict(many[many["unique_id"] == "south201"])
    np.testing.assert_allclose(
        whole[whole["unique_id"] == "south201"]["min_gru"], alone["min_gru"], rtol=1e-5
    )


def test_large_series_do_not_outweigh_small_ones(plain: Forecaster) -> None:
    """Scaled by themselves, series that differ by their size alone have forecasts that do too."""
    base = PAST[PAST["unique_id"] == "north"][["ds", "y"]]
    pair = pd.concat([base.assign(unique_id="a"), base.assign(unique_id="b", y=base["y"] * 1e4 - 7)])
    found = plain.predict(pair)
    a, b = (found[found["unique_id"] == name]["min_gru"].to_numpy() for name in "ab")
    np.testing.assert_allclose(b, a * 1e4 - 7, rtol=1e-4)
    assert plain.run_.model.location.abs().max() < 0.2
    assert Forecaster(horizon=4, scaler="global", **TINY).fit(PAST).run_.model.location.max() > 1000


def test_irregular_stamps_are_told_and_asked_for() -> None:
    rng = np.random.default_rng(1)
    hours = np.cumsum(rng.integers(1, 9, ROWS))
    frame = pd.DataFrame(
        {"ds": pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"), "y": np.sin(hours)}
    )
    made = Forecaster(horizon=3, irregular=True, **{**TINY, "model": "s4d"}).fit(frame)
    usual = pd.Timedelta(hours=float(np.median(np.diff(hours))))
    found = made.predict()
    assert found["ds"].tolist() == [frame["ds"].iloc[-1] + usual * i for i in (1, 2, 3)]
    asked = pd.DataFrame({"ds": frame["ds"].iloc[-1] + pd.to_timedelta([2, 9, 10], unit="h")})
    at = made.predict(X_df=asked)
    assert at["ds"].tolist() == asked["ds"].tolist()
    # The steps in front of the last rows reach the mixers, and those ahead the head.
    wider = frame.assign(ds=frame["ds"].where(frame.index < ROWS - 5, frame["ds"] + pd.Timedelta(hours=50)))
    assert (made.predict(wider)["y"] - found["y"]).abs().max() > 1e-6
    assert (at["y"] - found["y"]).abs().max() > 1e-6
    with pytest.raises(ValueError, match="3 rows with stamps after the end; got 2"):
        made.predict(X_df=asked.head(2))
    with pytest.raises(ValueError, match=r"row 2 .*stamps that increase"):
        made.predict(X_df=asked.iloc[[1, 0, 2]])
    with pytest.raises(ValueError, match="min_gru has no continuous time"):
        Forecaster(horizon=3, irregular=True, **TINY).fit(frame)


def test_frequencies_and_gaps() -> None:
    days = pd.DataFrame(
        {"unique_id": "d", "ds": pd.date_range("2024", periods=40, freq="D"), "y": 1.0 * np.arange(40)}
    )
    frame = pd.concat([PAST[["unique_id", "ds", "y"]], days.drop(7)])
    with pytest.raises(ValueError, match=r"2 days from 2024-01-07 .*gaps='fill'"):
        Forecaster(horizon=2, **TINY).fit(frame)
    with pytest.raises(ValueError, match=r"got 1 day in series 'd'.*frequencies='mixed'"):
        Forecaster(horizon=2, gaps="fill", **TINY).fit(frame)
    made = Forecaster(horizon=2, gaps="fill", frequencies="mixed", **TINY).fit(frame)
    assert made.run_.details["missing"] == 1
    found = made.predict()
    assert found["ds"].tolist()[-2:] == [pd.Timestamp("2024-02-10"), pd.Timestamp("2024-02-11")]
    assert found["ds"].tolist()[0] == pd.Timestamp("2024-01-03 04:00")


def test_constant_and_short_series_are_forecast() -> None:
    def months(name: str, values: np.ndarray | list[float]) -> pd.DataFrame:
        ds = pd.date_range("2020-01-01", periods=len(values), freq="MS")
        return pd.DataFrame({"unique_id": name, "ds": ds, "y": values})

    frame = pd.concat(
        [
            months("long", np.sin(np.arange(50.0))),
            months("three", [1.0, 2.0, 3.0]),
            months("same", np.full(30, 2000.0)),
            months("zero", np.zeros(9)),
            months("one", [4.0]),
        ]
    )
    made = Forecaster(horizon=4, **TINY).fit(frame)
    found = made.predict().set_index("unique_id")
    assert np.isfinite(found.drop(columns="ds")).all(axis=None)
    for name, value in (("same", 2000.0), ("zero", 0.0), ("one", 4.0)):
        band = found.loc[name, ["min_gru-lo-80", "min_gru", "min_gru-hi-80"]]
        assert (band - value).abs().max(axis=None) < 0.02 * max(value, 1)
    assert found.loc["three", "ds"].iloc[0] == pd.Timestamp("2020-04-01")
    three = months("three", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"a horizon of 4 is learned from series of 5 rows .* has 3"):
        Forecaster(horizon=4, **TINY).fit(three)
    assert len(Forecaster(horizon=1, **{**TINY, "look_back": None}).fit(three).predict()) == 1
    single = Forecaster(horizon=2, **TINY).fit(months("a", np.full(30, 5.0))[["ds", "y"]]).predict()
    assert (single.drop(columns="ds") - 5).abs().max(axis=None) < 0.1


def test_warm_start_and_refit(plain: Forecaster, tmp_path: Path) -> None:
    place = plain.save(tmp_path / "kept")
    names = {n for n, _ in plain.run_.model.named_parameters()}
    before = {n: t.clone() for n, t in plain.run_.model.state_dict().items()}
    still = {**TINY, "lr": 1e-12, "quantiles": plain.quantiles}
    other = PAST.assign(y=PAST["y"] * 3 + 1)
    for source in (plain, place, str(place)):
        made = Forecaster(horizon=4, scaler="global", **still).fit(other, start_from=source)
        state = made.run_.model.state_dict()
        for name in names:
            torch.testing.assert_close(state[name], before[name], rtol=0, atol=1e-9)
        assert state["location"] != before["location"]
    with pytest.raises(ValueError, match=r"weights to start from do not fit the model: .*shape"):
        Forecaster(horizon=4, **{**still, "width": 16}).fit(PAST, start_from=plain)
    opened = load(place)
    opened.refit(other, budget="2steps")
    after = opened.run_.model.state_dict()
    assert torch.equal(after["location"], before["location"])
    assert any(not torch.equal(after[n], before[n]) for n in names)
    assert max((after[n] - before[n]).abs().max() for n in names) < 1e-2
    assert (opened.result_.steps, opened.model) == (2, "min_gru")
    assert len(opened.predict()) == 12


def test_saved_and_loaded_it_reads_frames_as_before(told: Forecaster, tmp_path: Path) -> None:
    opened = load(told.save(tmp_path / "kept"))
    assert isinstance(opened, Forecaster)
    pd.testing.assert_frame_equal(opened.predict(PAST, X_df=AHEAD, static_df=AREA), told.predict(X_df=AHEAD))
    kept = {name: opened.get_params()[name] for name in ("known", "observed", "static", "calendar", "scaler")}
    assert kept == {
        "known": ["price"],
        "observed": ["rain"],
        "static": ["kind"],
        "calendar": True,
        "scaler": "local",
    }
    with pytest.raises(ValueError, match=r"the static column 'area'.*static_df"):
        opened.predict(PAST, X_df=AHEAD)


MISTAKES = {
    "no future": (lambda f: f.predict(), "known ahead .'price'.: give their future as X_df"),
    "column lacks": (lambda f: f.predict(X_df=AHEAD[["unique_id", "ds"]]), "X_df: expected a column 'price'"),
    "row lacks": (
        lambda f: f.predict(X_df=AHEAD.iloc[1:]),
        "a row for each of the 4 steps ahead of series 'north'; got none for 2024-01-03 04:00:00",
    ),
    "too few to roll": (
        lambda f: f.predict(X_df=AHEAD, h=9),
        "9 steps ahead of series 'north'; got none for",
    ),
    "cell lacks": (
        lambda f: f.predict(X_df=AHEAD.assign(price=np.nan)),
        "X_df, row 1 .*column 'price': expected a number, as the covariate is known ahead; got 'nan'",
    ),
    "double": (lambda f: f.predict(X_df=pd.concat([AHEAD, AHEAD])), "row 25 .*one row a stamp"),
    "unknown covariate": (
        lambda f: f.predict(X_df=AHEAD.assign(oil=1.0)),
        "X_df holds 'oil', which this forecaster did not learn; known ahead are 'price'",
    ),
    "other stamps": (
        lambda f: f.predict(X_df=AHEAD.assign(ds=range(24))),
        "X_df, column 'ds': expected dates as the stamps of the series; got numbers",
    ),
    "text": (lambda f: f.predict(PAST.assign(y="many"), X_df=AHEAD), "row 1 .*column 'y': .* got 'many'"),
    "unsorted": (lambda f: f.predict(PAST.iloc[::-1], X_df=AHEAD), "row 2 .*stamps that increase.* Sort"),
    "nothing seen": (
        lambda f: f.predict(PAST.assign(y=PAST["y"].where(PAST["unique_id"] != "west")), X_df=AHEAD),
        "series 'west' has no value to forecast from in its last 16 steps",
    ),
    "new category": (
        lambda f: f.predict(PAST.assign(kind="huge"), X_df=AHEAD),
        "got 'huge' of series 'north'",
    ),
    "wide": (
        lambda f: f.predict(PAST[["ds", "price"]].head(30), X_df=AHEAD),
        "this forecaster learned series by unique_id; got columns 'ds', 'price'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_a_sentence(told: Forecaster, name: str) -> None:
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words) as caught:
        call(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 60}, "a horizon of 60 is learned from series of 61 rows or more; the longest has 52"),
        ({"known": ["oil"]}, "expected a column 'oil'"),
        ({"known": "price"}, r"known is a list of columns; got 'price'\. Write \['price'\]"),
        ({"known": ["rain"], "observed": ["rain"]}, "'rain' was named twice"),
        ({"static": ["price"]}, "one value of a static column throughout series 'north'"),
        ({"scaler": "none"}, "scaler is 'global', 'local' or None; got 'none'"),
        ({"validation": 1.0}, "validation is a share below 1"),
        ({"gaps": "skip"}, "gaps is 'refuse' or 'fill'; got 'skip'"),
        ({"targets": ["kind"]}, "column 'kind': expected a number; got 'big'"),
    ],
)
def test_what_cannot_be_fitted_leaves_no_folder(options: dict, words: str, tmp_path: Path) -> None:
    made = Forecaster(**{**TINY, "horizon": 4, "folder": tmp_path / "run", **options})
    with pytest.raises(ValueError, match=words):
        made.fit(PAST)
    assert not (tmp_path / "run").exists()


def test_covariates_that_nobody_learned_are_refused(plain: Forecaster) -> None:
    with pytest.raises(ValueError, match="learned no covariates that are known ahead, and got X_df"):
        plain.predict(X_df=AHEAD)


def test_a_wide_frame_with_what_is_known_ahead() -> None:
    frame = FRAME[FRAME["unique_id"] == "north"].drop(columns=["unique_id", "kind"]).reset_index(drop=True)
    made = Forecaster(horizon=4, known=["price"], **TINY).fit(frame.head(ROWS - 4))
    found = made.predict(X_df=frame.tail(4))
    assert list(found.columns[:5]) == ["ds", "y", "y-lo-80", "y-median", "y-hi-80"]
    assert found["ds"].tolist() == frame["ds"].tolist()[-4:]
    assert {"rain", "rain-lo-80"} < set(found.columns)


def test_its_frames_are_what_utilsforecast_reads(plain: Forecaster) -> None:
    evaluation = pytest.importorskip("utilsforecast.evaluation")
    losses = pytest.importorskip("utilsforecast.losses")
    both = plain.predict().merge(FRAME[["unique_id", "ds", "y"]], on=["unique_id", "ds"])
    metrics = [losses.mae, partial(losses.mase, seasonality=24), losses.coverage]
    found = evaluation.evaluate(both, metrics, models=["min_gru"], train_df=PAST, level=[80, 95])
    south = both[both["unique_id"] == "south"]
    table = found[found["unique_id"] == "south"].set_index("metric")["min_gru"]
    assert table["mae"] == pytest.approx((south["y"] - south["min_gru"]).abs().mean())
    inside = (south["y"] >= south["min_gru-lo-95"]) & (south["y"] <= south["min_gru-hi-95"])
    assert table["coverage_level95"] == pytest.approx(inside.mean())


def test_a_recipe_brings_its_own_settings(tmp_path: Path) -> None:
    options = {name: value for name, value in TINY.items() if name not in ("model", "width", "depth")}
    made = Forecaster(model="dlinear", horizon=4, **options).fit(PAST)
    assert (made.run_.spec["backbone"], made.run_.spec["shortcut"]) == (None, 25)
    assert made.run_.settings.batch_size == 32
    opened = load(made.save(tmp_path / "kept"))
    assert (opened.model, opened.width) == ("dlinear", None)
    pd.testing.assert_frame_equal(opened.predict(PAST), made.predict())


def test_forecasts_come_in_float64_of_every_series(plain: Forecaster) -> None:
    outputs = forecast(plain.run_.model, plain.panel_, None, 4)
    assert (outputs.dtype, outputs.shape) == (np.float64, (3, 4, 1, 6))


def test_mixers_side_by_side_are_told_from_a_run_folder() -> None:
    frame = FRAME[FRAME["unique_id"] == "north"][["ds", "price", "rain"]]
    options = {**TINY, "model": "tsm2:min_gru:min_gru", "depth": 2}
    made = Forecaster(horizon=4, **options).fit(frame)
    opened = load(made.run_.folder)
    assert _described(made.run_.spec["backbone"]) == ("tsm2:min_gru", 2)
    assert (opened.model, opened.depth, opened.width) == ("tsm2:min_gru:min_gru", 2, 8)

"""Streams: they say what the model says of the same rows, carry no more with time, are saved and taken up."""

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.backbones.stack import Stack
from hippodrome.estimators import Forecaster
from hippodrome.estimators._running import Running
from hippodrome.estimators.streaming import Stream
from hippodrome.models.forecasting import ForecastingModel

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "model": "min_gru"}
HOURS = pd.date_range("2024-01-01", periods=160, freq="h")


def wave(rows: int = 160) -> np.ndarray:
    return np.sin(np.arange(rows) / 3) + np.random.default_rng(0).normal(size=rows) / 5 + np.arange(rows) / 40


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    frame = pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": wave()})
    return Forecaster(horizon=5, look_back=16, **TINY).fit(frame)


def model(stride: int, **options) -> ForecastingModel:
    torch.manual_seed(1)
    made = ForecastingModel(Stack.example(), 2, 12, 4, patch=4, stride=stride, scale=[2.0, 0.5], **options)
    return made.double().eval()


@pytest.mark.parametrize(("stride", "renew"), [(1, None), (3, 1), (3, 7), (3, None)])
def test_a_forecast_is_the_models_of_all_rows_since_its_state_began(stride: int, renew: int | None) -> None:
    made = model(stride, observed=1, known=1, static=2, shortcut=3)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(46, 4)).cumsum(0).astype(np.float32)
    rows[30, 1] = np.nan
    static, ahead = np.array([0.5, -1.0]), rng.normal(size=(4, 1)).astype(np.float32)
    run = Running(made, rows[:20], static=static, renew=renew)
    for end in range(21, 47):
        run.update(rows[end - 1])
        begun = 20 + run.runners[run.count % stride].begun
        assert end - begun < (12 if renew is None else renew) + stride
        if end % 4:
            continue
        with torch.no_grad():
            past, told = torch.tensor(rows[begun - 12 : end]).double(), torch.tensor(ahead).double()
            exact, _ = made(past[None], known=told[None], static=torch.tensor(static)[None])
        np.testing.assert_allclose(run.forecast(ahead), exact[0].numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_carried_does_not_grow(forecaster: Forecaster) -> None:
    stream = Stream(forecaster, pd.DataFrame({"unique_id": "a", "ds": HOURS[:30], "y": wave()[:30]}))
    sizes = set()
    for i, value in enumerate(wave()[30:110]):
        stream.update(value)
        if i >= 40:
            sizes.add(sum(tensor.nbytes for tensor in stream.running.tensors().values()))
    assert len(sizes) == 1


def test_begun_afresh_each_time_it_forecasts_what_predict_does(forecaster: Forecaster) -> None:
    frame = pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": wave()})
    stream = Stream(forecaster, frame[:120], renew=1)
    for row in frame[120:].to_dict("records"):
        stream.update(row)
    pd.testing.assert_frame_equal(stream.forecast([80]), forecaster.predict(frame), rtol=1e-5)


def test_stamps_that_were_passed_over_are_missing_values(forecaster: Forecaster) -> None:
    frame = pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": wave()})
    told, passed = (Stream(forecaster, frame[:50]) for _ in range(2))
    for value in (np.nan, np.nan, 1.5):
        told.update(value)
    passed.update(1.5, HOURS[52])
    pd.testing.assert_frame_equal(told.forecast(), passed.forecast())
    for stamp, words in ((HOURS[52], "come in order"), ("2024-01-05 00:30", "lies between"), ("x", "a date")):
        with pytest.raises(ValueError, match=words):
            passed.update(1.0, stamp)
    passed.update(1.0, "2025-01-01")  # far more absent rows than a window holds
    assert passed.forecast()["ds"][0] == pd.Timestamp("2025-01-01 01:00")
    with pytest.raises(ValueError, match="1 values; got 2"):
        passed.update([1.0, 2.0])
    with pytest.raises(ValueError, match="no column 'z'"):
        passed.update({"z": 1.0})


def test_a_saved_stream_goes_on_as_if_it_had_not_stopped(forecaster: Forecaster, tmp_path) -> None:
    values = wave()
    frame = pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": values})
    one = Stream(forecaster, frame[:40], adaptive=[80], memory=20)
    for value in values[40:70]:
        one.update(value)
        one.forecast()
    one.save(tmp_path / "stream.safetensors")
    two = Stream.load(tmp_path / "stream.safetensors", forecaster)
    for value in values[70:90]:
        for stream in (one, two):
            stream.update(value)
        pd.testing.assert_frame_equal(one.forecast(), two.forecast())
    other = Forecaster(horizon=5, look_back=16, **{**TINY, "seed": 1}).fit(frame)
    with pytest.raises(ValueError, match="another model"):
        Stream.load(tmp_path / "stream.safetensors", other)
    (tmp_path / "cut").write_bytes((tmp_path / "stream.safetensors").read_bytes()[:100])
    with pytest.raises(ValueError, match="no saved stream"):
        Stream.load(tmp_path / "cut", forecaster)


def test_adaptive_bands_follow_a_series_whose_noise_grows(forecaster: Forecaster) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": wave()})
    stream = Stream(forecaster, frame, adaptive=[80], rate=0.1, memory=40)
    inside = []
    for i in range(100):
        low, high = stream.forecast([80]).iloc[0][["min_gru-lo-80", "min_gru-hi-80"]]
        value = rng.normal() * (1 + i / 8)
        inside.append(low <= value <= high)
        stream.update(value)
    assert abs(np.mean(inside) - 0.8) <= (0.8 + 0.1) / (0.1 * 100) + 1e-9


def test_rows_that_do_not_belong_are_refused_and_leave_a_stream_as_it_was(forecaster: Forecaster) -> None:
    stream = Stream(forecaster, pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": wave()}))
    before = stream.forecast()
    for row, stamp, words in (
        ({"unique_id": "b", "y": 1.0}, None, "stream of series 'a'; got a row of 'b'"),
        (np.inf, None, "finite numbers"),
        ({"y": "warm"}, None, "finite numbers"),
        (1.0, pd.NaT, "a date such as"),
        (1.0, "2926-01-01", "a date such as"),
    ):
        with pytest.raises(ValueError, match=words):
            stream.update(row, stamp)
    pd.testing.assert_frame_equal(stream.forecast(), before)
    stream.update(1.0, "2261-12-31 23:00")  # two million absent rows are counted, not written down
    assert stream.forecast()["ds"][0] == pd.Timestamp("2262-01-01")


def test_stamps_that_are_numbers_are_read_as_they_are() -> None:
    at = np.cumsum(np.tile([1, 2, 1, 3], 10))
    data = pd.DataFrame({"unique_id": "a", "ds": at, "y": 1.0 + np.arange(40)})
    made = Forecaster(horizon=2, look_back=8, irregular=True, **{**TINY, "model": "s4d"}).fit(data)
    stream = made.stream()
    stream.update(41.0, 70.5)
    assert stream.ticker.last == 70.5
    even = made.set_params(irregular=False, model="min_gru").fit(data.assign(ds=np.arange(40))).stream()
    with pytest.raises(ValueError, match="lies between"):
        even.update(1.0, 40.5)
    even.update(1.0, "42.0")
    assert even.forecast()["ds"].tolist() == [43, 44]

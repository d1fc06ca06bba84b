"""Archives, recordings, generated expressions and series, and the door to all sources."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hippodrome.data import BUILT_IN, open_source
from hippodrome.data._open import _check_number
from hippodrome.data.generated import _lorenz
from hippodrome.data.listops import TOKENS, evaluate, open_listops, parse
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.models.language import LanguageModel
from hippodrome.models.regression import RegressionModel
from hippodrome.models.video import VideoModel


def archive(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


def labelled(n: int = 20) -> dict[str, np.ndarray]:
    inputs = np.random.default_rng(0).standard_normal((n, 5, 2))
    return {"inputs": inputs, "labels": np.arange(n) % 2}


def test_archive_of_values(tmp_path: Path) -> None:
    arrays = labelled()
    arrays["lengths"] = np.array([5, 3] * 10)
    task = open_source(archive(tmp_path, **arrays))
    assert task.facts["classes"] == ["0", "1"]
    assert task.facts["channels"] == 2
    assert task.details["sequences"] == {"train": 12, "valid": 4, "test": 4}
    item = task.train[0]
    assert item.inputs.shape[0] == (5 if item.label == 0 else 3)


def test_archive_of_tokens_with_its_own_split_and_named_classes(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).integers(0, 7, (12, 4))
    inputs[0, 0] = 6
    split = np.array(["train"] * 6 + ["valid"] * 2 + ["test"] * 4)
    task = open_source(archive(tmp_path, inputs=inputs, labels=np.array(["x", "y"] * 6), split=split))
    assert task.facts == {"classes": ["x", "y"], "vocab_size": 7}
    assert torch.equal(task.test[0].inputs, torch.from_numpy(inputs[8]))
    assert len(task.valid) == 2  # type: ignore[arg-type]


def test_archive_of_a_series(tmp_path: Path) -> None:
    path = archive(tmp_path, values=np.arange(50.0))
    task = open_source(path, look_back=4, horizon=2, season=5)
    assert task.kind == "forecasting"
    assert task.test[0].future[:, 0].tolist() == [40, 41]
    assert "seasonal naive" in task.naive()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, r"expected arrays 'inputs' and 'labels' .* got 'inputs'"),
        ({"labels": np.zeros(3)}, r"'labels' of shape \(20,\), one a row; got float64 of shape \(3,\)"),
        (
            {"lengths": np.array([5, 9] + [5] * 18)},
            "row 2 .*column 'lengths': expected a length from 1 to 5; got 9",
        ),
        ({"lengths": np.ones(3)}, r"'lengths' of shape \(20,\); got int64 of shape \(3,\)"),
        ({"inputs": np.zeros(20)}, r"'inputs' of shape \(n, t, c\) or \(n, t\)"),
        ({"split": np.array(["train"] * 19 + ["exam"])}, "row 20 .*column 'split': .* got 'exam'"),
        ({"inputs": np.full((20, 5), -1)}, "token ids of 0 or more in 'inputs'; got -1"),
        ({"inputs": np.full((20, 5, 1), np.inf)}, "row 1 .*column '0, 0': expected finite numbers"),
    ],
)
def test_archive_faults(tmp_path: Path, change: dict, words: str) -> None:
    arrays = {k: v for k, v in {**labelled(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=words) as caught:
        open_source(archive(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_archive_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="an archive of plain arrays"):
        open_source(path)
    np.savez(path, inputs=np.array([{}], dtype=object), labels=np.array([0]))
    with pytest.raises(ValueError, match="without Python objects"):
        open_source(path)


def test_archive_with_time_steps(tmp_path: Path) -> None:
    dt = np.random.default_rng(1).uniform(0.5, 2, (20, 5))
    lengths = np.array([5, 3] * 10)
    dt[1, 4] = 0  # behind the end of its row, so of no account
    task = open_source(archive(tmp_path, **labelled(), lengths=lengths, dt=dt))
    item = task.train[1]
    assert item.dt is not None
    assert item.dt.shape == item.inputs.shape[:1]
    batch = task.collate([task.train[i] for i in range(4)])
    assert batch.dt.shape == batch.inputs.shape[:2]
    assert bool((batch.dt > 0).all())
    assert "without continuous time" in task.details["time steps"]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_archive_with_time_steps_that_are_none(tmp_path: Path, bad: float) -> None:
    dt = np.ones((20, 5))
    dt[2, 3] = bad
    words = f"row 3 .*column 'dt, 3': expected time steps that are finite and above 0; got {bad}"
    with pytest.raises(ValueError, match=words):
        open_source(archive(tmp_path, **labelled(), dt=dt))
    with pytest.raises(ValueError, match=words):
        open_source(archive(tmp_path, inputs=np.zeros((20, 5, 2)), targets=np.zeros((20, 5, 1)), dt=dt))
    with pytest.raises(ValueError, match=r"'dt' of shape \(20, 5\), real numbers; got float64 of shape"):
        open_source(archive(tmp_path, **labelled(), dt=dt[:, :4]))


def test_archive_with_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((20, 6, 2)), 3 + 2 * rng.standard_normal((20, 6, 1))
    targets[:, :2] = np.nan
    task = open_source(archive(tmp_path, inputs=inputs, targets=targets, dt=np.full((20, 6), 0.5)))
    assert task.kind == "regression"
    train = torch.stack([task.train[i].targets for i in range(len(task.train))])  # type: ignore[arg-type]
    assert task.facts["target_location"] == pytest.approx([float(train.nanmean())], rel=1e-5)
    batch = task.collate([task.test[i] for i in range(2)])
    assert batch.targets.shape == (2, 6, 1)
    assert float(batch.dt.mean()) == 0.5
    fewer = open_source(archive(tmp_path, inputs=inputs, targets=targets), count=10, valid=0.5)
    assert fewer.details["sequences"] == {"train": 5, "valid": 5, "test": 4}
    assert task.naive()["train mean"]["mse"] == pytest.approx(1, abs=0.5)
    with pytest.raises(ValueError, match=r"'targets' of shape \(20, 6, 'o'\)"):
        open_source(archive(tmp_path, inputs=inputs, targets=targets[:, :3]))


def recording(path: Path, samples: int = 30, rate: int = 8000, tracks: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(samples).uniform(-0.5, 0.5, (samples, tracks))
    soundfile.write(path, values, rate)


def test_recordings(tmp_path: Path) -> None:
    for i in range(10):
        recording(tmp_path / "cat" / f"{i}.wav", 20 + i)
        recording(tmp_path / "dog" / f"{i}.flac", 40 + i)
    task = open_source(tmp_path)
    assert task.kind == "classification"
    assert task.facts["classes"] == ["cat", "dog"]
    assert (task.details["sampling"], task.facts["channels"]) == ("8000 Hz", 1)
    assert task.details["sequences"] == {"train": 12, "valid": 4, "test": 4}
    assert task.details["steps"]["least"] == 20
    batch = task.collate([task.test[i] for i in range(4)])
    assert batch.inputs.shape[0] == 4
    assert float(batch.inputs.abs().max()) <= 0.5


def tone(path: Path, *cycles: float, samples: int = 4000) -> np.ndarray:
    """A recording at 8 kHz of tones that fit it a whole number of times, each of size 0.25."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(samples) / 8000
    soundfile.write(path, sum(0.25 * np.cos(2 * np.pi * c * time) for c in cycles), 8000, subtype="FLOAT")
    return time


def test_recordings_at_half_their_rate_lose_what_that_cannot_hold(tmp_path: Path) -> None:
    for i in range(5):
        time = tone(tmp_path / "cat" / f"{i}.wav", 600.0, 2400.0)
        tone(tmp_path / "dog" / f"{i}.wav", 500.0)
    task = open_source(tmp_path, rate=4000)
    assert task.details["sampling"] == "4000 Hz: recorded at 8000 Hz, low-pass, every 2. sample"
    assert task.details["steps"]["most"] == 2000
    cat = next(item for item in (task.test[i] for i in range(2)) if item.label == 0)
    expected = 0.25 * np.cos(2 * np.pi * 600 * time[::2])  # every second sample alone would fold 2400 to 1600
    assert np.abs(cat.inputs[:, 0].numpy() - expected).max() < 1e-5
    cut = open_source(tmp_path, rate=4000, seconds=0.1)
    assert cut.details["steps"]["most"] == 400
    assert cut.details["cut"] == "10 of 10 to their first 0.1 s"
    assert len(open_source(tmp_path, seconds=0.1).test[0].inputs) == 800
    with pytest.raises(ValueError, match=r"a lower rate divides it; got 3000\. Take one of 8000, 4000, 2000"):
        open_source(tmp_path, rate=3000)
    with pytest.raises(ValueError, match="the longest piece holds one sample at least; got 0 seconds"):
        open_source(tmp_path, seconds=0.0)


def test_recordings_that_are_split_already(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                recording(tmp_path / part / name / f"{i}.wav", 20 + i, tracks=2)
    task = open_source(tmp_path)
    assert task.details["sequences"] == {"train": 8, "valid": 2, "test": 4}
    assert task.facts["channels"] == 2


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"rate": 16000}, r"b\.wav: expected 8000 Hz as in a\.wav; got 16000 Hz\. Bring all"),
        ({"tracks": 2}, r"b\.wav: expected 1 tracks as in a\.wav; got 2"),
        ({"samples": 0}, r"b\.wav: expected a recording; got an empty one"),
    ],
)
def test_recording_faults(tmp_path: Path, other: dict, words: str) -> None:
    recording(tmp_path / "cat" / "a.wav")
    recording(tmp_path / "cat" / "b.wav", **other)
    with pytest.raises(ValueError, match=words):
        open_source(tmp_path)


def test_recording_that_is_not_one(tmp_path: Path) -> None:
    recording(tmp_path / "cat" / "a.wav")
    (tmp_path / "cat" / "b.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"b\.wav: expected a recording; got a file that cannot be read"):
        open_source(tmp_path)


@pytest.mark.data
def test_published_listops_file_has_the_values_we_compute(data_folder: Path) -> None:
    lines = (data_folder / "listops" / "test_d20s.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert len(rows) == 10_000
    assert [evaluate(parse(text)) for _, text in rows] == [int(label) for label, _ in rows]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MAX 2 9 4 ]", 9),
        ("[MIN 2 9 4 ]", 2),
        ("[MED 1 2 9 ]", 2),
        ("[MED 1 4 ]", 2),
        ("[SM 9 9 5 ]", 3),
        ("( ( [SM 1 ) ( ( [MAX 3 ) 8 ) ] ) ] )", 9),
    ],
)
def test_listops_by_hand(text: str, value: int) -> None:
    assert evaluate(parse(text)) == value


@pytest.mark.parametrize("text", ["", "1 2", "[MAX 1 2", "1 ]", "[MAX ]", "[MAX 1 ] ]"])
def test_listops_refuses_brackets_that_do_not_match(text: str) -> None:
    with pytest.raises(ValueError, match="brackets do not match"):
        evaluate(parse(text))


def test_listops_task() -> None:
    task = open_listops(length=64, count=300)
    assert (len(task.train), len(task.valid), len(task.test)) == (240, 30, 30)  # type: ignore[arg-type]
    assert task.facts["vocab_size"] == len(TOKENS) == 15
    item = task.train[5]
    assert evaluate(item.inputs.tolist()) == item.label
    assert task.tokenizer is not None
    text = task.tokenizer.decode(item.inputs.tolist())
    assert task.tokenizer.encode(f"( {text} )").ids == item.inputs.tolist() == parse(text)
    assert torch.equal(open_listops(length=64, count=300).train[5].inputs, item.inputs)
    assert not torch.equal(open_listops(length=64, count=300, seed=1).train[5].inputs, item.inputs)


def test_seasonal_best_error_is_what_the_oracle_reaches() -> None:
    task = open_source("seasonal", count=40_000, horizon=12)
    best, found = task.details["known best error"], task.naive()
    assert found["oracle"]["mse"] == pytest.approx(best["mse"], rel=0.05)
    assert found["oracle"]["mae"] == pytest.approx(best["mae"], rel=0.05)
    assert all(metrics["mse"] > 2 * best["mse"] for name, metrics in found.items() if name != "oracle")


def test_chaotic_stays_on_the_attractor_and_has_the_noise_it_says() -> None:
    clean, noisy = open_source("chaotic", noise=1e-9), open_source("chaotic", noise=0.1)
    values, seen = (task.train.values.double() for task in (clean, noisy))  # type: ignore[attr-defined]
    assert bool((values[:, 2] > 0).all())
    assert float(values.abs().max()) < 60
    assert clean.details["known best error"]["mse"] < 1e-15
    scale = torch.tensor(noisy.facts["scale"], dtype=torch.float64)
    measured = ((seen - values) / scale).square().mean().item()
    assert measured == pytest.approx(noisy.details["known best error"]["mse"], rel=0.05)


def test_lorenz_is_integrated_to_fourth_order() -> None:
    ends = [_lorenz(np.array([1.0, 2.0, 20.0]), 1, 0.02 / 2**k, 10 * 2**k)[0] for k in range(4)]
    errors = [np.abs(end - ends[-1]).max() for end in ends[:-1]]
    assert 13 < errors[0] / errors[1] < 20


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_facts_are_arguments_of_the_model(name: str) -> None:
    from hippodrome.backbones.block import Block
    from hippodrome.backbones.stack import Stack
    from hippodrome.mixers.min_gru import MinGRU

    models = {
        "language": LanguageModel,
        "classification": ClassificationModel,
        "regression": RegressionModel,
        "forecasting": ForecastingModel,
        "video": VideoModel,
    }
    few = {"count": 100}
    options = {
        "listops": {"count": 200, "length": 64},
        "chaotic": {"count": 2000},
        **dict.fromkeys(("delay", "reconstruction", "pathfinder", "moving-shapes"), few),
    }.get(name, {})
    task = open_source(name, **options)
    # One channel at each point of a latent frame; any width serves the other kinds.
    backbone = Stack([Block(MinGRU(64))]) if task.kind == "video" else Stack.example()
    model = models[task.kind](backbone, **task.facts)
    batch = task.collate([task.train[i] for i in range(2)])
    assert bool(model.loss(batch).isfinite())
    found = task.naive()
    assert found
    without = [rule for rule, metrics in found.items() if model.objective.metric not in metrics]
    # Where a string may end at any length, its end has not been seen before: infinitely many nats.
    assert without == (["what was seen, by frequency"] if name == "string_copying" else [])


def test_an_option_that_is_a_number_is_held_to_that() -> None:
    for value in ("x", 2.5, True, float("nan")):
        with pytest.raises(ValueError, match="'delay' takes a whole number as 'lag'; got"):
            _check_number("delay", "lag", value, int | None)
    for value in ("x", False, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="'delay' takes a finite number as 'band'; got"):
            _check_number("delay", "band", value, float)
    for value, kind in ((np.int64(3), int), (2, float | None), (2.5, float), ("bytes", str | int)):
        _check_number("any", "option", value, kind)


def test_the_door_says_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file or folder 'pyton-docs'\. Did you mean 'python-docs'\?"):
        open_source("pyton-docs")
    with pytest.raises(
        ValueError, match=re.escape("there is no file or folder '/nowhere/x.csv'. Correct the path.")
    ):
        open_source("/nowhere/x.csv")
    with pytest.raises(
        ValueError, match="the source 'python-docs' has no option 'horizon'; it knows 'length'"
    ):
        open_source("python-docs", horizon=3)
    with pytest.raises(ValueError, match="makes a language task; kind 'forecasting' was asked"):
        open_source("python-docs", kind="forecasting")
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "1,2\n" * 300)
    with pytest.raises(ValueError, match="is read as table, for forecasting; got kind 'classification'"):
        open_source(path, kind="classification")
    assert open_source(path, kind="language", length=8).kind == "language"

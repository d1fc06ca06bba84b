"""Sound as tokens: the published levels, recordings kept apart, windows that miss nothing."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hippodrome.data import open_source
from hippodrome.data.quantization import SILENCE, dequantize, quantize


def recording(path: Path, samples: int, seed: int = 0, rate: int = 8000, tracks: int = 1) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, tracks))
    soundfile.write(path, values, rate, subtype="FLOAT")
    return values.astype(np.float32)


def test_levels_are_the_published_ones() -> None:
    x = np.array([-1, -0.5, -0.1, 0, 0.1, 0.5, 1])
    assert quantize(x).tolist() == [0, 15, 52, 128, 203, 240, 255]
    assert quantize(x, "linear").tolist() == [0, 64, 115, 128, 140, 191, 255]
    assert quantize(np.zeros(3)).tolist() == [SILENCE] * 3
    assert dequantize(np.array([0, SILENCE])).tolist() == [-1, 0]


@pytest.mark.parametrize("kind", ["mu-law", "linear"])
def test_levels_come_back_within_one_step(kind: str) -> None:
    x = np.sin(np.arange(4000) / 7) * np.linspace(0, 1, 4000)
    x[0] = 1
    back = dequantize(quantize(x, kind), kind)
    # One level is 1/128 on the axis of levels; mu-law stretches it by (1/255 + |x|) log 256 there.
    size = (1 / 255 + np.abs(x)) * np.log(256) * 1.05 if kind == "mu-law" else 1
    assert (np.abs(back - x) <= size / 128 + 1e-9).all()
    levels = np.arange(256, dtype=np.uint8)
    again = quantize(dequantize(levels, kind), kind)
    assert np.abs(again.astype(int) - levels).max() <= 1


def test_whole_recordings_begin_in_silence_and_are_predicted_to_their_ends(tmp_path: Path) -> None:
    values = {i: recording(tmp_path / f"{i}.wav", 20 + i, i) for i in range(10)}
    task = open_source(tmp_path)
    assert task.kind == "language"
    assert task.facts == {"vocab_size": 256}
    assert task.details["sound"] == {"rate": 8000, "quantization": "mu-law"}
    assert [len(part) for part in (task.train, task.valid, task.test)] == [8, 1, 1]
    found = [task.train[i].targets.tolist() for i in range(8)]
    found += [task.valid[0].targets.tolist(), task.test[0].targets.tolist()]
    assert sorted(found) == sorted(quantize(v[:, 0]).tolist() for v in values.values())
    batch = task.collate([task.train[i] for i in range(8)])
    assert (batch.tokens[:, 0] == SILENCE).all()
    assert batch.resets is None
    seen = batch.targets != -100
    assert seen.sum(1).tolist() == [len(task.train[i].targets) for i in range(8)]
    assert torch.equal(batch.tokens[:, 1:][seen[:, 1:]], batch.targets[:, :-1][seen[:, 1:]])


def test_windows_hold_every_sample_once_and_reset_where_a_recording_begins(tmp_path: Path) -> None:
    for i in range(30):
        recording(tmp_path / "test" / f"{i:02d}.wav", 10 + i, i)
        recording(tmp_path / "train" / f"{i:02d}.wav", 12, i)
    whole = open_source(tmp_path, kind="language").test
    task = open_source(tmp_path, kind="language", length=64)
    items = [task.test[i] for i in range(len(task.test))]
    targets, tokens, starts = (torch.cat([item[k] for item in items]) for k in (1, 0, 2))
    assert torch.equal(targets, torch.cat([whole[i].targets for i in range(len(whole))]))
    assert torch.equal(tokens, torch.cat([whole[i].tokens for i in range(len(whole))]))
    assert starts.nonzero()[:, 0].tolist() == np.cumsum([0, *range(10, 39)]).tolist()
    batch = task.collate(items)
    assert batch.resets is not None
    assert not batch.resets[:, 0].any()
    assert torch.equal(batch.tokens[batch.resets], torch.full((int(batch.resets.sum()),), SILENCE))
    one, other = task.train[5], task.train[5]
    assert torch.equal(one.tokens, other.tokens)
    assert len(task.train) >= 2**17


def test_one_recording_is_cut_in_time_at_another_rate_and_tracks_are_averaged(tmp_path: Path) -> None:
    values = recording(tmp_path / "a.wav", 2000, tracks=2)
    task = open_source(tmp_path / "a.wav", length=50, quantization="linear")
    parts = [torch.cat([p[i].targets for i in range(len(p))]) for p in (task.valid, task.test)]
    expected = quantize(values.mean(1), "linear")
    assert np.array_equal(torch.cat(parts).numpy(), expected[1800:])
    slow = open_source(tmp_path / "a.wav", length=50, rate=4000)
    assert slow.details["sound"]["rate"] == 4000
    assert sum(slow.details["samples"].values()) == 1000


def test_counts_are_a_baseline(tmp_path: Path) -> None:
    # Levels that alternate: alone each is a coin, after the other it is certain but for the smoothing.
    wave = np.tile([1.0, -1.0], 2000)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", wave, 8000, subtype="FLOAT")
    naive = open_source(tmp_path).naive()
    assert naive["unigram"]["bits_per_byte"] == pytest.approx(1, abs=0.1)
    assert naive["bigram"]["nats"] < 0.01
    assert naive["bigram"]["accuracy"] > 0.999


def test_a_folder_of_classes_stays_a_classification(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(4):
            recording(tmp_path / name / f"{i}.wav", 30)
    assert open_source(tmp_path).kind == "classification"
    assert open_source(tmp_path, kind="language").kind == "language"


def test_bad_input(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 40)
    with pytest.raises(ValueError, match=r"three recordings or more .*; got 1"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="more than 16384 samples in the first 90 %, which train; got 36"):
        open_source(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="mu-law or linear; got 'a-law'"):
        open_source(tmp_path / "a.wav", quantization="a-law")
    with pytest.raises(ValueError, match="length is 1 or more; got 0"):
        open_source(tmp_path / "a.wav", length=0)
    for name in "bc":
        recording(tmp_path / f"{name}.wav", 40)
    recording(tmp_path / "c.wav", 40, rate=16000)
    with pytest.raises(ValueError, match="got 16000 Hz"):
        open_source(tmp_path)
    (tmp_path / "c.wav").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"c\.wav: expected a recording; got a file that cannot be read"):
        open_source(tmp_path)

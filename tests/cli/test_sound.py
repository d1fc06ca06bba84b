"""`hippodrome generate` of models of sound: files that can be read, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from hippodrome.cli import app
from hippodrome.data.quantization import dequantize, quantize


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tones."""
    folder = tmp_path_factory.mktemp("tones")
    for i in range(10):
        soundfile.write(folder / f"{i}.wav", np.sin(np.arange(300) * (0.2 + 0.02 * i)), 4000)
    return folder


@pytest.fixture(scope="module")
def sound_run(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of them, in the U-net."""
    words = ("--kind", "language", "--model", "sashimi:min_gru", "--width", 8, "--depth", 1)
    folder = tmp_path_factory.mktemp("sound") / "run"
    budget = ("--budget", "2steps", "--device", "cpu", "--out", folder)
    made = CliRunner().invoke(app, [str(word) for word in ("train", sounds, *words, *budget)])
    assert made.exit_code == 0, made.output
    return folder


def test_a_model_of_sound_writes_recordings_and_their_picture(
    cli, sound_run: Path, sounds: Path, tmp_path: Path
) -> None:
    assert not (sound_run / "tokenizer.json").exists()
    assert 0 < cli("evaluate", sound_run, "--json").json()["metrics"]["nats"] < 10
    words = ("generate", sound_run, "--seconds", 0.05, "--seed", 3)
    picture = tmp_path / "d.png"
    said = cli(*words, "--clips", 2, "--out", tmp_path / "d.wav", "--spectrogram", picture)
    assert said.code == 0, said.err
    assert said.out.split() == [str(tmp_path / name) for name in ("d-1.wav", "d-2.wav", "d.png")]
    assert picture.read_bytes().startswith(b"\x89PNG")
    clips = [soundfile.read(tmp_path / f"d-{i}.wav") for i in (1, 2)]
    assert [(len(samples), rate) for samples, rate in clips] == [(200, 4000)] * 2
    assert not np.array_equal(clips[0][0], clips[1][0])
    again = [cli(*words, "--out", tmp_path / f"{name}.wav", "--json").json()["files"][0] for name in "ab"]
    assert Path(again[0]).read_bytes() == Path(again[1]).read_bytes()

    went_on = tmp_path / "on.wav"
    assert (
        cli("generate", sound_run, "--prompt", sounds / "3.wav", "--tokens", 20, "--out", went_on).code == 0
    )
    samples, _ = soundfile.read(went_on)
    assert len(samples) == 320
    start = dequantize(quantize(soundfile.read(sounds / "3.wav")[0]))
    np.testing.assert_allclose(samples[:300], start, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a file to write with --out"),
        (("--out", "x.mp3"), "this file's name ends in .wav; got x.mp3"),
        (("--out", "none/x.wav"), "there is no folder none for x.wav"),
        (("--out", "x.wav", "--seconds", "0"), "one sample at least; got 0 seconds"),
        (("--out", "x.wav", "--seconds", "nan"), "seconds is a finite number"),
        (("--out", "x.wav", "--seconds", "1", "--tokens", "5"), "give one of them"),
        (("--out", "x.wav", "--spectrogram", "x.jpg"), "ends in .png; got x.jpg"),
        (("--out", "x.wav", "--prompt", "The "), "there is no file The"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(cli, sound_run: Path, words: tuple, said: str) -> None:
    answer = cli("generate", sound_run, *words)
    assert answer.code != 0
    assert said in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


def test_options_of_sound_are_refused_by_a_model_of_text(cli, language_run: Path) -> None:
    for option, value in (
        ("--out", "x.wav"),
        ("--seconds", "1"),
        ("--clips", "2"),
        ("--spectrogram", "x.png"),
    ):
        answer = cli("generate", language_run, "--prompt", "The", option, value)
        assert answer.code != 0
        assert f"{option} is not for models of text" in answer.err

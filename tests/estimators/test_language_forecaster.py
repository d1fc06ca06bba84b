"""A forecaster that reads through a trained language model, as an estimator."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.estimators import Forecaster, Generator, load

TINY = {"budget": "2steps", "device": "cpu"}


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language") / "run"
    small = {"model": "min_gru", "width": 8, "depth": 1, "length": 16, "batch_size": 4, **TINY}
    Generator(folder=folder, **small).fit("The horse runs. " * 60)
    return folder


def frame(rows: int = 120) -> pd.DataFrame:
    hours = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame({"unique_id": "north", "ds": hours, "y": 3 + np.sin(np.arange(rows) / 3)})


def test_it_learns_forecasts_follows_and_comes_back_from_its_folder(language: Path, tmp_path: Path) -> None:
    settings = {"segment": 8, "experts": 2}
    made = Forecaster(
        "smetimes", 10, 20, (0.1, 0.9), language=language, settings=settings, folder=tmp_path / "run", **TINY
    ).fit(frame())
    network, reader = made.run_.model, load(language).run_.model
    assert (network.segment, network.experts.experts, network.frozen) == (8, 2, True)
    for name, tensor in reader.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], tensor), name
    found = made.predict()
    assert list(found.columns) == ["unique_id", "ds", "smetimes", "smetimes-lo-80", "smetimes-hi-80"]
    assert bool((found["smetimes-lo-80"] < found["smetimes-hi-80"]).all())
    again = load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.predict(frame()), found)
    assert again.get_params()["model"] == "smetimes"
    stream = made.stream()
    pd.testing.assert_frame_equal(stream.forecast(), found, rtol=1e-5)
    stream.update(3.0)
    assert stream.forecast()["ds"].iloc[0] == found["ds"].iloc[1]


def test_only_the_recipe_takes_a_language_model(language: Path) -> None:
    with pytest.raises(ValueError, match="Take the recipe smetimes"):
        Forecaster("min_gru", 10, 20, language=language, **TINY).fit(frame())

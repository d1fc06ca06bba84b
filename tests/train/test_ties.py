"""Weights that are equal by the metric that chooses: the second metric decides, where there is one."""

import pytest
import torch
from toy_run import TRAIN, VALID, collate, toy_model

from hippodrome.models.base import Objective
from hippodrome.shapes import Mean
from hippodrome.train.fit import fit
from hippodrome.train.settings import TrainSettings


@pytest.mark.parametrize(
    ("then", "better", "best"), [(None, "higher", 1), ("nats", "higher", 3), ("nats", "lower", 3)]
)
def test_the_second_metric_decides_between_equals(tmp_path, monkeypatch, then, better, best) -> None:
    told = iter([(0.5, 2.0), (0.5, 3.0), (0.5, 1.0), (0.5, 1.0)])
    model = toy_model()

    def metrics(batch):
        if not shown:
            shown.append(next(told))
        right, nats = shown[0]
        return {"right": Mean(torch.tensor(right), 1), "nats": Mean(torch.tensor(nats), 1)}

    shown: list = []
    monkeypatch.setattr(type(model), "objective", Objective("right", better, then))
    monkeypatch.setattr(type(model), "metrics", lambda self, batch: metrics(batch))
    settings = TrainSettings(budget="4steps", batch_size=32, device="cpu", validations=4, warmup=0.0)

    def forget(event):
        if event["event"] == "validation":
            shown.clear()

    result = fit(model, TRAIN, VALID, collate, settings, tmp_path, on_event=forget)
    assert result.best_step == best

"""The regression: what is asked counts, on scaled values, and time steps reach only what has time."""

import pytest
import torch
from torch import Tensor

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.s4d import S4D
from hippodrome.models.base import accepts_dt
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.regression import RegressionModel
from hippodrome.shapes import LabelledBatch, RegressionBatch
from hippodrome.testing.models import check_model


def test_loss_and_metrics_are_of_scaled_values_that_are_asked() -> None:
    model, batch = RegressionModel.example().double(), RegressionModel.example_batch()
    batch = RegressionBatch(batch.inputs.double(), batch.targets.double())
    said, _ = model(batch.inputs)
    seen = ~batch.targets.isnan()
    squares = ((said - batch.targets) / torch.tensor([1.0, 0.5, 2.0]))[seen].square()
    found = {name: mean.value for name, mean in model.metrics(batch).items()}
    assert model.loss(batch).item() == pytest.approx(squares.mean().item(), rel=1e-9)
    assert found["mse"] == pytest.approx(squares.mean().item(), rel=1e-9)
    assert found["r2"] == pytest.approx(1 - squares.mean().item(), rel=1e-9)
    nothing = batch._replace(targets=torch.full_like(batch.targets, float("nan")))
    assert model.loss(nothing).item() == 0.0


def test_a_missing_input_is_its_mean() -> None:
    model, inputs = RegressionModel.example(), RegressionModel.example_batch().inputs.clone()
    inputs[0, 2, 0] = 0.5
    known, _ = model(inputs)
    inputs[0, 2, 0] = float("nan")
    assert torch.equal(model(inputs)[0], known)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_time_steps_reach_a_backbone_that_has_time_and_no_other(kind: str) -> None:
    dt = torch.full((3, 9), 2.0)

    def loss(backbone: Stack, steps: Tensor | None) -> float:
        torch.manual_seed(0)
        if kind == "regression":
            model = RegressionModel(backbone, 2, 3)
            return model.loss(RegressionModel.example_batch()._replace(dt=steps)).item()
        labels = torch.tensor([0, 1, 0])
        inputs = RegressionModel.example_batch().inputs
        classifier = ClassificationModel(backbone, ["a", "b"], channels=2)
        return classifier.loss(LabelledBatch(inputs, torch.tensor([9, 4, 7]), labels, steps)).item()

    timed, mixed = Stack([Block(S4D(8))]), Stack([Block(S4D(8)), Block(GRU(8))])
    assert (accepts_dt(timed), accepts_dt(mixed), accepts_dt(torch.nn.Identity())) == (True, False, False)
    assert loss(timed, dt) != loss(timed, None)
    assert loss(timed, torch.ones(3, 9)) == pytest.approx(loss(timed, None), rel=1e-5)
    assert loss(mixed, dt) == loss(mixed, None)


def test_increments_are_changes_from_the_input() -> None:
    model = RegressionModel(Stack.example(), 3, 2, [0.5, 0.0, 0.0], target_scale=[2.0, 0.5], increments=True)
    plain = RegressionModel(Stack.example(), 3, 2, [0.5, 0.0, 0.0], target_scale=[2.0, 0.5])
    plain.load_state_dict(model.state_dict())
    x = torch.randn(3, 7, 3)
    torch.testing.assert_close(model(x)[0], plain(x)[0] + x[..., :2])
    torch.testing.assert_close(
        model.loss(RegressionBatch(x, x[..., :2] + 1.0)), plain.loss(RegressionBatch(x, torch.ones(3, 7, 2)))
    )
    x[0, 3, 0] = float("nan")
    torch.testing.assert_close(
        model(x)[0][0, 3], plain(x)[0][0, 3] + torch.stack([x.new_tensor(0.5), x[0, 3, 1]])
    )
    check_model(model, RegressionBatch(torch.randn(3, 9, 3), torch.randn(3, 9, 2)))


def test_a_roll_out_reads_what_it_predicted() -> None:
    model = RegressionModel(Stack([Block(S4D(8))]), 2, 2, increments=True).double().eval()
    x, dt = torch.randn(3, 6, 2).double(), torch.full((3, 6), 2.0).double()
    rolled = model.roll_out(x, 4, dt=dt)
    for step in range(4):
        known = torch.cat([x, rolled[:, :step]], 1)
        wanted = model(known, dt=torch.full(known.shape[:2], 2.0).double())[0][:, -1]
        torch.testing.assert_close(rolled[:, step], wanted, atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match="got 3 targets from 2 channels"):
        RegressionModel.example().roll_out(x.float(), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": 0}, "one target at least; got 2 and 0"),
        ({"target_scale": [1.0]}, "target_scale holds one number for each of 3; got 1"),
        ({"location": [1.0]}, "location holds one number for each of 2; got 1"),
        ({"increments": True}, "no more targets than channels; got 3 and 2"),
    ],
)
def test_sizes_that_do_not_fit(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RegressionModel(**{"backbone": Stack.example(), "channels": 2, "targets": 3, **change})

"""A shared law with a part for each environment: what each reads, what it costs, roll-outs, refusals."""

import pytest
import torch

from hippodrome import config
from hippodrome.backbones.stack import Stack
from hippodrome.data import open_source
from hippodrome.models.environments import EnvironmentsModel
from hippodrome.models.regression import RegressionModel


def test_without_own_parts_it_is_a_regression_with_increments() -> None:
    scales = {"scale": [2.0, 0.5], "target_location": [0.1, 0.2], "target_scale": [0.5, 2.0]}
    plain = RegressionModel(Stack.example(), 2, 2, increments=True, **scales)
    scales["scale"] = [2.0, 0.5, 7.0]
    model = EnvironmentsModel(Stack.example(), 3, 2, 3, **scales)
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = EnvironmentsModel.example_batch()
    batch.inputs[2, 4, 1] = float("nan")
    alone = batch._replace(inputs=batch.inputs[..., :2])
    torch.testing.assert_close(model(batch.inputs)[0], plain(alone.inputs)[0])
    torch.testing.assert_close(model.loss(batch), plain.loss(alone))
    assert bool(model.loss(batch).isfinite())
    assert model.metrics(batch)["own"].value == 0


def test_each_environment_has_its_part_and_pays_for_its_size() -> None:
    model, batch = EnvironmentsModel.example(), EnvironmentsModel.example_batch()
    before = model(batch.inputs)[0]
    with torch.no_grad():
        model.own_out[1] = 1.0
    after = model(batch.inputs)[0]
    moved = (after - before).abs().amax((1, 2))
    assert moved[0] == moved[2] == 0
    assert moved[1] > 0.01
    x = batch.inputs[1, :, :2] - torch.tensor([0.5, 0.0])
    inner = torch.nn.functional.gelu(x @ model.own_in[1].T + model.own_bias[1]).sum(-1)
    torch.testing.assert_close((after - before)[1], inner[:, None] * torch.tensor([0.5, 2.0]))
    size = 2 * float(inner.detach().square().sum()) / batch.targets.numel()
    assert model.metrics(batch)["own"].value == pytest.approx(size, rel=1e-5)
    free = EnvironmentsModel(model.backbone, 3, 2, 3, hidden=4, penalty=0.0)
    free.load_state_dict(model.state_dict())
    assert float((model.loss(batch) - free.loss(batch)).detach()) == pytest.approx(0.01 * size, rel=1e-3)


def test_a_roll_out_stays_in_its_environment() -> None:
    model = EnvironmentsModel.example().double().eval()
    torch.nn.init.normal_(model.own_out)
    inputs = EnvironmentsModel.example_batch().inputs.double()
    rolled = model.roll_out(inputs, 3)
    known = inputs
    for step in range(3):
        wanted = model(known)[0][:, -1]
        torch.testing.assert_close(rolled[:, step], wanted, atol=1e-10, rtol=1e-10)
        known = torch.cat([known, torch.cat([wanted, inputs[:, 0, 2:]], -1)[:, None]], 1)
    with pytest.raises(ValueError, match="got 0"):
        model.roll_out(inputs, 0)


def test_it_learns_its_source_and_needs_its_own_parts() -> None:
    task = open_source("environments", count=18, length=10)
    own = {"kind": "environments", "environments": 9}
    model = config.build({**task.facts, **own, "backbone": config.stack_spec("mlp", 8, 1)})
    batch = task.collate([task.train[i] for i in range(18)])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    whole = model.metrics(batch)["mse"].value
    with torch.no_grad():
        model.own_out.zero_()
    assert whole < 0.2 * task.naive()["persistence"]["mse"]
    assert whole < 0.7 * model.metrics(batch)["mse"].value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 2}, "got 2 channels for 2 targets"),
        ({"environments": 0}, "got 0, 16 and 0.01"),
        ({"penalty": -1.0}, "got 3, 16 and -1"),
        ({"scale": [1.0]}, "scale holds one number for each of 3; got 1"),
    ],
)
def test_what_cannot_be_built(change: dict, words: str) -> None:
    given = {"backbone": Stack.example(), "channels": 3, "targets": 2, "environments": 3, **change}
    with pytest.raises(ValueError, match=words):
        EnvironmentsModel(**given)


def test_an_environment_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 2; got 0 to 5"):
        EnvironmentsModel.example()(torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 5.0]]]))

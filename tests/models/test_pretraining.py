"""The pretraining model: what its loss reads, what it hands on, and what it refuses."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Subset

from hippodrome import config, runs
from hippodrome.backbones.stack import Stack
from hippodrome.data import open_source
from hippodrome.data.pretext import pretext_task
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.pretraining import PretrainingModel
from hippodrome.models.regression import RegressionModel
from hippodrome.shapes import LabelledBatch, PretextBatch
from hippodrome.testing.models import check_model
from hippodrome.train.settings import TrainSettings

NAN = float("nan")


def token_batch(hidden_id: int | None) -> PretextBatch:
    numbers = torch.Generator().manual_seed(1)
    tokens = torch.randint(9, (3, 8), generator=numbers)
    hidden = torch.rand(3, 8, generator=numbers) < 0.4
    lengths = torch.tensor([8, 5, 6])
    behind = torch.arange(8) >= lengths[:, None]
    if hidden_id is None:
        targets = torch.cat([tokens[:, 1:], tokens[:, :1]], 1).masked_fill(behind.roll(-1, 1) | behind, -100)
        targets[:, -1] = -100
        return PretextBatch(tokens, targets, lengths)
    return PretextBatch(
        torch.where(hidden, hidden_id, tokens),
        torch.where(hidden & ~behind, tokens, -100),
        lengths,
    )


def value_batch() -> PretextBatch:
    """Grey values below 16 asked for as levels."""
    batch = token_batch(9)
    hidden = batch.inputs == 9
    values = torch.where(hidden, NAN, batch.inputs.float())
    return PretextBatch(torch.stack([values, hidden.float()], -1), batch.targets, batch.lengths)


VARIANTS = {
    "tokens, masked": (lambda b: PretrainingModel(b, vocab_size=9), lambda: token_batch(9)),
    "tokens, causal": (lambda b: PretrainingModel(b, "causal", vocab_size=9), lambda: token_batch(None)),
    "levels": (
        lambda b: PretrainingModel(b, channels=1, levels=16, location=[7.0], scale=[4.0]),
        value_batch,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str) -> None:
    make, batch = VARIANTS[name]
    check_model(make(Stack.example()), batch())


def both_ways(width: int = 8) -> Stack:
    return config.build(config.stack_spec("bi-min_gru", width, 2), "backbones")


def test_what_reads_both_ways_fills_in_from_both_sides_and_not_from_the_padding() -> None:
    model = PretrainingModel(both_ways(), vocab_size=9).double().eval()
    batch = token_batch(9)
    filled = batch._replace(inputs=batch.inputs.masked_fill(torch.arange(8) >= batch.lengths[:, None], 3))
    assert float(model.loss(filled)) == pytest.approx(float(model.loss(batch)), rel=1e-12)
    later = batch.inputs.clone()
    later[0, 7] = (later[0, 7] + 1) % 9
    one = PretextBatch(batch.inputs, torch.full_like(batch.targets, -100), batch.lengths)
    one.targets[0, 2] = 4
    assert float(model.loss(one._replace(inputs=later))) != float(model.loss(one))


def test_only_what_is_asked_pulls_at_the_predictions() -> None:
    for model, batch in (
        (PretrainingModel.example(), PretrainingModel.example_batch()),
        *((make(Stack.example()), batch()) for make, batch in VARIANTS.values()),
    ):
        caught: list[Tensor] = []

        def keep(_: object, __: object, output: tuple, caught: list[Tensor] = caught) -> None:
            output[0].retain_grad()
            caught.append(output[0])

        model.backbone.register_forward_hook(keep)
        model.loss(batch).backward()
        asked = batch.targets >= 0 if batch.targets.dim() == 2 else ~batch.targets.isnan().all(-1)
        pulled = (caught[0].grad != 0).any(-1)
        assert torch.equal(pulled, asked)


def test_the_train_mean_scores_the_mean_absolute_deviation() -> None:
    values = torch.randn(4, 50, 2, dtype=torch.float64) * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, -2.0])
    mean, deviation = values.flatten(0, 1).mean(0), values.flatten(0, 1).std(0, correction=0)
    model = PretrainingModel(
        Stack.example(), channels=2, location=mean.tolist(), scale=deviation.tolist()
    ).double()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    hidden = torch.rand(4, 50) < 0.3
    for asked in (hidden, torch.ones_like(hidden)):
        inputs = torch.cat([torch.where(asked[..., None], NAN, values), asked[..., None].double()], -1)
        batch = PretextBatch(
            inputs, torch.where(asked[..., None], values, NAN), torch.full((4,), 50, dtype=torch.long)
        )
        wanted = ((values[asked] - mean) / deviation).abs().mean()
        assert float(model.loss(batch)) == pytest.approx(float(wanted), rel=1e-6)
        found = model.metrics(batch)["loss"]
        assert found.value == pytest.approx(float(wanted), rel=1e-6)
        assert found.count == 2 * int(asked.sum())


def test_nothing_asked_costs_nothing() -> None:
    model, batch = PretrainingModel.example(), PretrainingModel.example_batch()
    silent = batch._replace(targets=torch.full_like(batch.targets, NAN))
    assert float(model.loss(silent)) == 0.0
    tokens = token_batch(9)
    silent = tokens._replace(targets=torch.full_like(tokens.targets, -100))
    assert float(VARIANTS["tokens, masked"][0](Stack.example()).loss(silent)) == 0.0


@pytest.mark.parametrize("pretext", ["masked", "causal"])
def test_a_classifier_starts_from_the_pretrained_backbone_to_the_bit(pretext: str, tmp_path: Path) -> None:
    task = open_source("listops", length=24, count=150)
    stack = config.stack_spec("min_gru", 8, 2)
    settings = TrainSettings(budget="3steps", batch_size=4, validations=1, device="cpu")  # type: ignore[arg-type]
    runs.train({"backbone": stack}, pretext_task(task, pretext), settings, tmp_path / "first")
    pretrained = runs.load(tmp_path / "first").model
    assert isinstance(pretrained, PretrainingModel)
    start = pretrained.handed_on()
    still = settings.model_copy(update={"lr": 1e-30, "weight_decay": 0.0})
    runs.train({"backbone": stack}, task, still, tmp_path / "second", start_from=start)
    tuned = runs.load(tmp_path / "second").model
    assert isinstance(tuned, ClassificationModel)
    theirs, ours = pretrained.state_dict(), tuned.state_dict()
    shared = [name for name in ours if name.startswith("backbone.")]
    assert shared
    assert all(torch.equal(theirs[name], ours[name]) for name in shared)
    assert torch.equal(theirs["input.weight"][:15], ours["input.weight"])
    assert theirs["input.weight"].shape[0] == (16 if pretext == "masked" else 15)
    assert set(ours) - set(start) == {"head.weight", "head.bias", "location", "scale"}


def test_values_hand_their_channels_on_and_a_regression_takes_them() -> None:
    pretrained = PretrainingModel.example().eval()
    start = pretrained.handed_on()
    values = torch.randn(2, 6, 2)
    unhidden = torch.cat([values, torch.zeros(2, 6, 1)], -1)
    wanted = pretrained.backbone(pretrained._embed(unhidden))[0]
    for model in (
        ClassificationModel(Stack.example(), ["a", "b"], 2, location=[0.5, 0.0], scale=[2.0, 1.0]),
        RegressionModel(Stack.example(), 2, 3, location=[0.5, 0.0], scale=[2.0, 1.0]),
    ):
        model.load_state_dict({**model.state_dict(), **start})
        caught: list[Tensor] = []
        model.eval().backbone.register_forward_hook(lambda _, __, out, caught=caught: caught.append(out[0]))
        if isinstance(model, ClassificationModel):
            model.loss(LabelledBatch(values, torch.tensor([6, 6]), torch.tensor([0, 1])))
        else:
            model(values)
        assert torch.allclose(caught[0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of the two; got channels=None"),
        ({"channels": 1, "vocab_size": 3}, "one of the two; got channels=1"),
        ({"channels": 2, "levels": 256}, "levels, two or more, are of the values of one channel"),
        ({"vocab_size": 3, "levels": 2}, "levels, two or more"),
        ({"channels": 2, "location": [0.0]}, "location holds one number for each of the 2 channels"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainingModel(Stack.example(), **given)


def test_who_reads_both_ways_cannot_foretell() -> None:
    with pytest.raises(ValueError, match="Pretrain it with the pretext 'masked'"):
        PretrainingModel(both_ways(), "causal", channels=1)


def test_a_pretraining_that_was_stopped_hides_what_it_would_have_hidden(tmp_path: Path) -> None:
    task = open_source("listops", length=24, count=100)
    pretext = pretext_task(task._replace(train=Subset(task.train, range(10))), "masked", rate=0.3)
    spec = {"backbone": config.stack_spec("min_gru", 8, 1)}
    settings = TrainSettings(
        budget="8steps", batch_size=4, validations=2, device="cpu", checkpoint_steps=1  # type: ignore[arg-type]
    )  # fmt: skip

    def stop(event: dict) -> None:
        if event["event"] == "validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(spec, pretext, settings, tmp_path / "cut", on_event=stop)
    assert list((tmp_path / "cut" / "checkpoints").glob("step-00000003-*"))
    runs.train(spec, pretext, settings, tmp_path / "cut", resume=True)
    runs.train(spec, pretext, settings, tmp_path / "whole")
    cut, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    # The masks are new on every visit: without that the end is another.
    pretext.train.renewed = False  # type: ignore[attr-defined]
    runs.train(spec, pretext, settings, tmp_path / "same")
    same = load_file(tmp_path / "same" / "model.safetensors")
    assert any(not torch.equal(same[name], whole[name]) for name in whole)

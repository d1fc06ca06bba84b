"""Training by corrections of low rank: what learns, what is written, what a resumed run finds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_run import TRAIN, VALID, collate

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.mlp import GatedMLP
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.language import LanguageModel
from hippodrome.train import checkpoint, low_rank
from hippodrome.train.fit import FitResult, fit
from hippodrome.train.optimizer import adamw
from hippodrome.train.settings import LowRankSettings, TrainSettings

LORA = LowRankSettings(rank=2, alpha=4.0, on=("in_proj", "out_proj"))


def model() -> LanguageModel:
    """Two blocks, always the same weights; the last two share their perceptron."""
    torch.manual_seed(0)
    mlp = GatedMLP(8)
    return LanguageModel(Stack([Block(Mamba2(8, d_state=4, head_dim=4), mlp) for _ in range(2)]), 16)


def settings(**given: object) -> TrainSettings:
    plain = {"budget": "12steps", "batch_size": 8, "device": "cpu", "validations": 3, "lr": 1e-2}
    return TrainSettings.model_validate({**plain, "checkpoint_steps": 4, "lora": LORA, **given})


def run(folder: Path, given: TrainSettings, resume: bool = False) -> tuple[LanguageModel, FitResult]:
    trained = model()
    return trained, fit(trained, TRAIN, VALID, collate, given, folder, resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LanguageModel, FitResult]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, settings())


def test_the_best_weights_are_merged_and_the_corrections_written_aside(
    whole: tuple[Path, LanguageModel, FitResult],
) -> None:
    folder, trained, result = whole
    before = model().state_dict()
    assert result.status == "finished"
    losses = [record["nats"] for record in result.history if record["event"] == "validation"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01
    assert result.weights.keys() == before.keys() == trained.state_dict().keys()
    changed = {name for name, w in result.weights.items() if not torch.equal(w, before[name])}
    assert changed == {f"backbone.blocks.{i}.mixer.{p}_proj.weight" for i in (0, 1) for p in ("in", "out")}
    for name in changed:
        difference = (result.weights[name] - before[name]).double()
        assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 2
    again = model()
    low_rank.apply(again, folder / low_rank.FILE)
    assert not any(isinstance(module, low_rank.LowRank) for module in again.modules())
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, result.weights[name]), name


def test_checkpoints_and_the_optimizer_hold_the_corrections_alone(
    whole: tuple[Path, LanguageModel, FitResult],
) -> None:
    state = checkpoint.read(checkpoint.latest(whole[0] / "checkpoints"))  # type: ignore[arg-type]
    adapter = load_file(whole[0] / low_rank.FILE)
    assert {name.removeprefix("model.") for name in state["weights"]} == set(adapter)
    assert all(name.endswith((".up", ".down")) for name in adapter)
    wrapped = model()
    low_rank.insert(wrapped, LORA)
    optimizer = adamw(wrapped, 1e-3, 0.1, (0.9, 0.95))
    held = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    moments = [m for one in state["optimizer"]["state"].values() for m in (one["exp_avg"], one["exp_avg_sq"])]
    assert sum(m.numel() for m in moments) == 2 * held == 2 * sum(w.numel() for w in adapter.values())


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    whole: tuple[Path, LanguageModel, FitResult], tmp_path: Path
) -> None:
    def stop(event: dict) -> None:
        if event["event"] == "validation" and event["step"] >= 4:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(model(), TRAIN, VALID, collate, settings(checkpoint_steps=1), tmp_path, on_event=stop)
    assert not (tmp_path / low_rank.FILE).exists()
    _, resumed = run(tmp_path, settings(), resume=True)
    assert resumed.steps == 12
    for name, tensor in resumed.weights.items():
        assert torch.equal(tensor, whole[2].weights[name]), name
    # Not byte by byte: the format puts its facts in no order.
    ours, theirs = (load_file(folder / low_rank.FILE) for folder in (tmp_path, whole[0]))
    assert set(ours) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("other", [None, {"rank": 3}, {"rank": 2, "on": "in_proj"}])
def test_a_run_is_not_resumed_with_other_corrections(
    whole: tuple[Path, LanguageModel, FitResult], other: dict | None
) -> None:
    with pytest.raises(ValueError, match="other corrections of low rank"):
        run(whole[0], settings(lora=other, budget="20steps"), resume=True)


def test_a_map_that_stands_in_several_places_has_one_correction() -> None:
    wrapped = model()
    names = low_rank.insert(wrapped, LowRankSettings(rank=2, on="fc1, mlp.fc2"))  # type: ignore[arg-type]
    assert len(names) == 4
    blocks = wrapped.backbone.blocks
    assert blocks[0].mlp.fc1 is blocks[1].mlp.fc1
    assert isinstance(blocks[0].mlp.fc1, low_rank.LowRank)
    assert sum(isinstance(module, low_rank.LowRank) for module in wrapped.modules()) == 2
    low_rank.merge(wrapped)
    assert wrapped.state_dict().keys() == model().state_dict().keys()


def test_a_head_of_its_own_may_have_one_too() -> None:
    torch.manual_seed(0)
    untied = LanguageModel(Stack([Block(Mamba2(8, d_state=4, head_dim=4), None)]), 16, tie=False)
    assert low_rank.insert(untied, LowRankSettings(rank=2, on=("head",))) == ["head"]
    with torch.no_grad():
        untied.head.up.normal_()
    tokens = torch.randint(16, (2, 5))
    wrapped, _ = untied(tokens)
    low_rank.merge(untied)
    assert isinstance(untied.head, nn.Linear)
    assert (untied(tokens)[0] - wrapped).abs().max() <= 1e-5


def test_a_table_may_train_whole_beside_the_corrections(tmp_path: Path) -> None:
    given = settings(lora={"rank": 2, "also": "embedding"}, budget="4steps", validations=1)
    trained, result = run(tmp_path, given)
    before = model().state_dict()
    assert not torch.equal(result.weights["embedding.weight"], before["embedding.weight"])
    assert torch.equal(result.weights["backbone.norm.weight"], before["backbone.norm.weight"])
    assert "embedding.weight" in load_file(tmp_path / low_rank.FILE)
    again = model()
    low_rank.apply(again, tmp_path / low_rank.FILE)
    assert all(torch.equal(w, result.weights[name]) for name, w in again.state_dict().items())
    assert torch.equal(trained.embedding.weight, again.embedding.weight)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 2, "also": "table"}, "nothing in the model is called 'table'"),
        ({"rank": 2, "on": "q_proj"}, "no linear map .* 'q_proj'; it has fc1, fc2, in_proj, out_proj"),
        ({"rank": 99}, "in_proj: a map from 8 to .* rank 1 to 8; got 99"),
    ],
)
def test_what_does_not_fit_the_model_is_told_by_name(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        low_rank.insert(model(), LowRankSettings.model_validate(given))


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for given in ({"rank": 0}, {"rank": 1, "alpha": 0}, {"rank": 1, "on": ""}, {"rank": 1, "in": "x"}):
        with pytest.raises(ValueError, match="validation error"):
            LowRankSettings.model_validate(given)
    with pytest.raises(ValueError, match="not sharded"):
        settings(strategy="fsdp")


def test_a_file_of_another_model_is_refused(
    whole: tuple[Path, LanguageModel, FitResult], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    deeper = LanguageModel(Stack([Block(Mamba2(8, d_state=4, head_dim=4), None) for _ in range(3)]), 16)
    with pytest.raises(ValueError, match="of another model"):
        low_rank.apply(deeper, whole[0] / low_rank.FILE)
    (tmp_path / "cut.safetensors").write_bytes((whole[0] / low_rank.FILE).read_bytes()[:-7])
    with pytest.raises(ValueError, match="cannot be read"):
        low_rank.apply(model(), tmp_path / "cut.safetensors")

"""What is peculiar to the imputation model: guesses, normalization, masks, quantiles, reading both ways."""

import numpy as np
import pytest
import torch

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.models.imputation import ImputationModel
from hippodrome.shapes import RegressionBatch
from hippodrome.testing.models import (
    check_files,
    check_groups,
    check_loss,
    check_metrics,
    prepared,
    to_float64,
)

NAN = float("nan")


def both_ways(**options: object) -> ImputationModel:
    backbone = Stack([Block(Bidirectional(MinGRU(8), MinGRU(8))), Block(Bidirectional.example())])
    given = {"channels": 2, **options}
    return ImputationModel(backbone, **given).double().eval()  # type: ignore[arg-type]


def silent(model: ImputationModel) -> ImputationModel:
    """The model with nothing added to its first guess."""
    for layer in (model.point, model.spreads):
        if layer is not None:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return model


def holed(rows: int = 3, steps: int = 12, seed: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, steps, 2)).cumsum(1)
    values[rng.random(values.shape) < 0.4] = NAN
    return torch.from_numpy(values)


@pytest.mark.parametrize("together", [True, False])
def test_contract_of_one_that_reads_both_ways(together: bool) -> None:
    model, batch = both_ways(together=together), to_float64(ImputationModel.example_batch())
    moved = prepared(model)
    for check in (check_loss, check_metrics, check_files):
        check(moved, batch)
    check_groups(moved)


def test_one_that_reads_both_ways_refuses_to_stream() -> None:
    model, x = both_ways(), holed()
    with pytest.raises(ValueError, match="neither a state nor a step"):
        model.init_state(3)
    with pytest.raises(ValueError, match="neither a state nor resets"):
        model.step(x[:, 0], ())
    with pytest.raises(ValueError, match="neither a state nor resets"):
        model(x, resets=torch.zeros(3, 12, dtype=torch.bool))


@pytest.mark.parametrize("normalization", ["window", "none"])
def test_first_guess_is_linear_interpolation(normalization: str) -> None:
    model = silent(both_ways(location=[3.0, -1.0], scale=[2.0, 0.5], normalization=normalization))
    x = holed()
    out, _ = model(x)
    for row in range(3):
        for variate in range(2):
            column = x[row, :, variate].numpy()
            known = np.flatnonzero(~np.isnan(column))
            wanted = np.interp(np.arange(12), known, column[known])
            np.testing.assert_allclose(out[row, :, variate, 0].detach(), wanted, rtol=1e-9, atol=1e-9)


def test_linear_guess_goes_by_the_time_that_passed() -> None:
    model = silent(both_ways(channels=1))
    x = torch.tensor([[[0.0], [NAN], [NAN], [6.0]]]).double()
    dt = torch.tensor([[1.0, 3.0, 1.0, 2.0]]).double()
    out, _ = model(x, dt=dt)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.0, 3.0, 4.0, 6.0]).double())


def test_causal_guess_is_the_last_value_seen_and_starts_anew_at_a_reset() -> None:
    model = silent(ImputationModel(Stack.example(), 1, location=[5.0]).double().eval())
    x = torch.tensor([[[NAN], [2.0], [NAN], [NAN], [7.0], [NAN]]]).double()
    resets = torch.tensor([[False, False, False, True, False, False]])
    assert model(x)[0][0, :, 0, 0].tolist() == [5.0, 2.0, 2.0, 2.0, 7.0, 7.0]
    assert model(x, resets=resets)[0][0, :, 0, 0].tolist() == [5.0, 2.0, 2.0, 5.0, 7.0, 7.0]


def test_level_and_size_of_a_window_pass_through() -> None:
    model, x = both_ways(scale=[2.0, 7.0]), holed()
    torch.testing.assert_close(model(100 + 10 * x)[0], 100 + 10 * model(x)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("guess", ["linear", "mean"])
def test_a_window_with_nothing_to_see_gives_the_train_mean(guess: str) -> None:
    model = silent(both_ways(location=[5.0, -3.0], guess=guess))
    out, _ = model(torch.full((1, 4, 2), NAN).double())
    torch.testing.assert_close(out[0, :, :, 0], torch.tensor([5.0, -3.0]).double().expand(4, 2))


def test_later_steps_change_earlier_answers_only_where_both_ways_are_read() -> None:
    x = holed()
    other = x.clone()
    other[:, -1] = 9.0
    ahead = ImputationModel(Stack.example(), 2).double().eval()
    torch.testing.assert_close(ahead(other)[0][:, :-1], ahead(x)[0][:, :-1], rtol=1e-12, atol=1e-12)
    model = both_ways(normalization="none", guess="mean")
    assert bool((model(other)[0][:, 0] != model(x)[0][:, 0]).any())


def test_apart_variates_share_all_weights_and_do_not_mix() -> None:
    model, x = both_ways(together=False), holed()
    torch.testing.assert_close(model(x.flip(-1))[0], model(x)[0].flip(2), rtol=1e-9, atol=1e-12)
    mixed = both_ways(together=True)
    other = x.clone()
    other[..., 1] = 3.0
    torch.testing.assert_close(model(other)[0][:, :, 0], model(x)[0][:, :, 0], rtol=1e-12, atol=0)
    assert bool((mixed(other)[0][:, :, 0] != mixed(x)[0][:, :, 0]).any())


def test_loss_and_metrics_are_of_the_cells_asked_for_on_the_train_scale() -> None:
    model = both_ways(location=[5.0, -3.0], scale=[2.0, 7.0], quantiles=(0.2, 0.8))
    whole = torch.randn(3, 12, 2).double()
    hidden = torch.rand(3, 12, 2) < 0.3
    batch = RegressionBatch(torch.where(hidden, NAN, whole), torch.where(hidden, whole, NAN))
    out, _ = model(batch.inputs)
    size = torch.tensor([2.0, 7.0]).double()
    error = ((out[..., 0] - whole) / size)[hidden]
    wide = ((whole[..., None] - out[..., 1:]) / size[:, None])[hidden]
    levels = torch.tensor([0.2, 0.8]).double()
    missed = torch.where(wide >= 0, levels * wide, (levels - 1) * wide).mean()
    found = model.metrics(batch)
    assert found["mse"].value == pytest.approx(error.square().mean().item(), rel=1e-9)
    assert found["mae"].value == pytest.approx(error.abs().mean().item(), rel=1e-9)
    assert found["coverage"].count == int(hidden.sum())
    torch.testing.assert_close(model.loss(batch), error.square().mean() + missed, rtol=1e-6, atol=0)
    assert bool((out[..., 1:].diff(dim=-1) > 0).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "one variate at least; got 0"),
        ({"quantiles": (0.9, 0.1)}, r"increasing levels inside \(0, 1\)"),
        ({"location": [1.0]}, "location holds one number for each of the 2 variates; got 1"),
    ],
)
def test_refuses_what_does_not_fit(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        both_ways(**options)


@pytest.mark.parametrize("options", [{"guess": "linear"}, {"normalization": "window"}])
def test_a_causal_backbone_is_not_shown_what_comes_later(options: dict) -> None:
    with pytest.raises(ValueError, match="fills in from the steps before"):
        ImputationModel(Stack.example(), 2, **options)

"""``fit``: it learns, keeps the best weights, leaves the caller's state alone, and ends as it should."""

import json
import re
import signal
import threading

import numpy as np
import pytest
import torch
from toy_run import TRAIN, VALID, Pairs, collate, toy_model

from hippodrome.shapes import Mean
from hippodrome.train import loop as loop_module
from hippodrome.train.checkpoint import random_states
from hippodrome.train.fit import evaluate, fit
from hippodrome.train.journal import Journal, read_journal
from hippodrome.train.settings import TrainSettings


def settings(**given) -> TrainSettings:
    return TrainSettings(**{"budget": "12steps", "batch_size": 8, "device": "cpu", "validations": 3, **given})


def test_it_learns_what_can_be_known(tmp_path):
    model = toy_model(dropout=0.0)
    before = evaluate(model, VALID, collate)["nats"]
    result = fit(model, TRAIN, VALID, collate, settings(budget="150steps", lr=2e-2), tmp_path)
    assert result.status == "finished"
    assert result.steps == 150
    assert result.tokens == 150 * 8 * 12
    # Half of the tokens repeat the one before: 0.5 log 16 is the floor, log 16 is knowing nothing.
    assert result.best["nats"] < 0.75 * before
    assert evaluate(model, VALID, collate) == pytest.approx(result.best, rel=1e-6)


def test_the_best_weights_are_left_in_the_model(tmp_path):
    model = toy_model()
    result = fit(model, TRAIN, VALID, collate, settings(budget="60steps", lr=0.5, validations=6), tmp_path)
    seen = [r for r in result.history if r["event"] == "validation"]
    best = min(seen, key=lambda r: r["nats"])
    assert result.best_step == best["step"]
    assert evaluate(model, VALID, collate)["nats"] == pytest.approx(best["nats"], rel=1e-6)
    assert all(torch.equal(tensor, result.weights[name]) for name, tensor in model.state_dict().items())


def test_files_are_ours_alone_and_the_journal_is_the_history(tmp_path):
    result = fit(toy_model(), TRAIN, VALID, collate, settings(log_every=5), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "metrics.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    found = [(r["event"], r["step"]) for r in lines]
    assert found == [("validation", 4), ("step", 5), ("validation", 8), ("step", 10), ("validation", 12)]
    assert all(np.isfinite(r["loss"]) for r in lines if r["event"] == "step")


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    def weights(seed: int, name: str) -> torch.Tensor:
        result = fit(toy_model(), TRAIN, None, collate, settings(seed=seed), tmp_path / name)
        return torch.cat([w.flatten() for w in result.weights.values()])

    first = weights(0, "a")
    assert torch.equal(first, weights(0, "b"))
    assert not torch.equal(first, weights(1, "c"))


def test_workers_see_the_same_batches(tmp_path):
    first = fit(toy_model(), TRAIN, None, collate, settings(), tmp_path / "a").weights
    second = fit(toy_model(), TRAIN, None, collate, settings(workers=1), tmp_path / "b").weights
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accumulation_averages_passes(tmp_path):
    dry = toy_model(dropout=0.0)
    once = fit(dry, TRAIN, None, collate, settings(batch_size=8), tmp_path / "a").weights
    dry = toy_model(dropout=0.0)
    twice = fit(dry, TRAIN, None, collate, settings(batch_size=4, accumulate=2), tmp_path / "b").weights
    for name in once:
        torch.testing.assert_close(once[name], twice[name], rtol=1e-4, atol=1e-5)


def test_the_callers_random_state_comes_back(tmp_path):
    before = random_states(torch.device("cpu"))
    fit(toy_model(), TRAIN, None, collate, settings(budget="2steps"), tmp_path)
    torch.manual_seed(0)  # toy_model seeds; what fit did in between must not show
    toy_model()
    expected = torch.rand(3)
    torch.set_rng_state(before["torch"])
    toy_model()
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.get_state()[1], before["numpy"][1].numpy())


@pytest.mark.parametrize(("budget", "steps"), [("7steps", 7), ("1ktok", 11)])
def test_budgets_end_where_they_are_spent(tmp_path, budget, steps):
    result = fit(toy_model(), TRAIN, None, collate, settings(budget=budget), tmp_path)
    assert result.steps == steps


def test_a_budget_in_seconds_counts_training_alone(tmp_path, monkeypatch):
    import time

    plain = loop_module.Loop._validate

    def slow(self, valid, spent):
        time.sleep(0.3)
        plain(self, valid, spent)

    monkeypatch.setattr(loop_module.Loop, "_validate", slow)
    result = fit(toy_model(), TRAIN, VALID, collate, settings(budget="0.5s", validations=5), tmp_path)
    assert 0.5 <= result.seconds < 0.8
    assert len([r for r in result.history if r["event"] == "validation"]) >= 3


def test_patience_stops_early(tmp_path):
    result = fit(
        toy_model(),
        TRAIN,
        VALID,
        collate,
        settings(budget="400steps", lr=1.0, validations=100, patience=2),
        tmp_path,
    )
    assert result.status == "stopped early"
    assert "brought no gain in nats" in result.message
    assert result.steps < 400


def test_a_loss_that_is_not_finite_ends_in_a_sentence(tmp_path):
    model = toy_model()
    plain, calls = model.loss, []

    def loss(batch):
        calls.append(1)
        return plain(batch) * (float("nan") if len(calls) > 6 else 1.0)

    model.loss = loss
    result = fit(model, TRAIN, VALID, collate, settings(log_every=2), tmp_path)
    assert result.status == "diverged"
    assert "not finite" in result.message
    assert result.best_step == 4
    assert all(torch.isfinite(w).all() for w in result.weights.values())


def test_a_loss_that_is_never_finite_leaves_no_weights(tmp_path):
    model = toy_model()
    plain = model.loss
    model.loss = lambda batch: plain(batch) * float("inf")
    result = fit(model, TRAIN, VALID, collate, settings(), tmp_path)
    assert (result.status, result.weights, result.best) == ("diverged", {}, {})


def test_events_come_for_steps_and_validations(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "EVENT_SECONDS", 0.0)
    events: list = []
    fit(toy_model(), TRAIN, VALID, collate, settings(log_every=5), tmp_path, on_event=events.append)
    steps = [e for e in events if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 13))
    assert all({"loss", "lr", "tokens", "seconds", "fraction"} <= set(e) for e in steps)
    assert [e["fraction"] for e in events if e["event"] == "validation"] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_journal_does_not_depend_on_who_watches(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "EVENT_SECONDS", 0.0)
    watched = fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path / "a", on_event=lambda e: None)
    monkeypatch.setattr(loop_module, "EVENT_SECONDS", 1e9)
    alone = fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path / "b")
    for one, other in zip(watched.history, alone.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_mixed_precision_trains(tmp_path):
    result = fit(toy_model(), TRAIN, VALID, collate, settings(precision="bf16-mixed"), tmp_path)
    assert result.status == "finished"
    assert all(w.dtype == torch.float32 for w in result.weights.values())


def test_a_progress_bar_can_be_had(tmp_path, capsys):
    fit(toy_model(), TRAIN, VALID, collate, settings(progress=True), tmp_path)
    # The bar opens with the budget; the first event, if the run is slow enough to send one, takes its place.
    assert re.search(r"training for 12 steps|step \d+ loss \d", capsys.readouterr().err)


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    fit(toy_model(), TRAIN, None, collate, settings(), tmp_path)
    with pytest.raises(ValueError, match="holds a run already"):
        fit(toy_model(), TRAIN, None, collate, settings(), tmp_path)


def test_a_file_in_the_folders_place_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        fit(toy_model(), TRAIN, None, collate, settings(), tmp_path / "run")


def test_a_device_that_is_not_there_is_told(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ValueError, match="'cuda' x 1"):
        fit(toy_model(), TRAIN, None, collate, settings(device="cuda"), tmp_path)


def test_a_request_to_stop_is_honoured_after_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "EVENT_SECONDS", 0.0)

    def watch(event):
        if event["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 6"):
        fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path, on_event=watch)
    assert signal.getsignal(signal.SIGINT) is before
    resumed = fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path, resume=True)
    whole = fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path / "whole")
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_it_trains_in_a_thread(tmp_path):
    results: list = []
    thread = threading.Thread(
        target=lambda: results.append(fit(toy_model(), TRAIN, None, collate, settings(), tmp_path))
    )
    thread.start()
    thread.join()
    assert results[0].status == "finished"


def test_a_larger_budget_goes_on_from_the_end(tmp_path):
    fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path)
    again = fit(toy_model(), TRAIN, VALID, collate, settings(), tmp_path, resume=True)
    assert again.steps == 12
    more = fit(toy_model(), TRAIN, VALID, collate, settings(budget="20steps"), tmp_path, resume=True)
    assert more.steps == 20
    assert [r["step"] for r in more.history if r["event"] == "validation"][:3] == [4, 8, 12]


def test_evaluation_adds_up_exactly_over_ragged_batches():
    class Ragged(Pairs):
        def __getitem__(self, index):
            return self.tokens[index][: 4 + index % 7]

    model, data = toy_model().double(), Ragged(23, 5)
    whole = {k: m.value for k, m in model.eval().metrics(collate([data[i] for i in range(23)])).items()}
    model.train()
    for size in (1, 5, 22, 40):
        assert evaluate(model, data, collate, size) == pytest.approx(whole, rel=1e-9)
    assert model.training
    spread = [1, 3, 5, 8, 10, 12, 14, 17, 19, 21]  # the middles of ten pieces of 2.3 rows
    some = {k: m.value for k, m in model.eval().metrics(collate([data[i] for i in spread])).items()}
    assert evaluate(model, data, collate, 5, batches=2) == pytest.approx(some, rel=1e-9)


def test_evaluating_nothing_is_told():
    with pytest.raises(ValueError, match="data set is empty"):
        evaluate(toy_model(), Pairs(0, 0), collate)


def test_a_metric_that_counts_nothing_is_not_a_number():
    model = toy_model()
    model.metrics = lambda batch: {"nats": Mean(torch.zeros(()), 0)}
    assert np.isnan(evaluate(model, VALID, collate)["nats"])


def test_a_journal_drops_what_the_checkpoint_has_not_seen(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "step", "step": 3}\n{"event": "step", "step": 6}\n{"event": "st')
    assert [r["step"] for r in read_journal(path)] == [3, 6]
    journal = Journal(path, 5)
    journal.add({"event": "step", "step": 4})
    journal.close()
    assert [r["step"] for r in read_journal(path)] == [3, 4]


@pytest.mark.compiled
def test_compiled_training_is_the_same_training_and_compiles_the_loss_alone(tmp_path, monkeypatch):
    compiled = []

    def compiler(function):
        compiled.append(function)
        return real(function, backend="aot_eager")

    real = torch.compile
    plain = fit(toy_model(dropout=0.0), TRAIN, VALID, collate, settings(), tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", compiler)
    model = toy_model(dropout=0.0)
    torch._dynamo.utils.counters.clear()
    result = fit(model, TRAIN, VALID, collate, settings(compile=True), tmp_path / "compiled")
    assert compiled == [model.loss]
    assert not torch._dynamo.utils.counters["graph_break"]
    assert result.best == pytest.approx(plain.best, rel=1e-4)
    assert list(model.state_dict()) == list(result.weights)

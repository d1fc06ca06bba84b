"""Pretexts: how much is hidden and where, what is asked, and that nothing but train inputs is read."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from hippodrome.data import open_source
from hippodrome.data._images import image_task
from hippodrome.data._labelled import labelled_task
from hippodrome.data.base import Task
from hippodrome.data.pretext import Pretext, check, mask, pretext_task, usual_rate
from hippodrome.train.batches import Share, Shuffled


class Forbidden(Dataset):
    """What no pretext may read."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> None:
        raise AssertionError("a pretext has read what is validated or tested on")


@pytest.fixture(scope="module")
def listops() -> Task:
    return open_source("listops", length=24, count=200)


def pictures(colours: tuple[int, ...] = (), order: str = "pixels") -> Task:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5, *colours)).astype(np.uint8)
    labels = np.arange(30) % 2
    parts = (np.arange(20), np.arange(20, 25), np.arange(25, 30))
    return image_task(images, labels, parts, ["even", "odd"], "noise", "noise", {}, order=order)


def all_items(data: Dataset) -> Iterator:
    return (data[i] for i in range(len(data)))  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.5])
def test_each_step_is_hidden_with_the_chance_asked_for(rate: float) -> None:
    hidden = torch.cat([mask(1000, rate, None, seed) for seed in range(100)])
    assert abs(float(hidden.double().mean()) - rate) < 3 * (rate * (1 - rate) / 1e5) ** 0.5
    # A step tells nothing about the next one: three deviations of a covariance of independent draws.
    both = float((hidden[1:] & hidden[:-1]).double().mean())
    spread = rate * (1 - rate) + 2 * rate * (rate * (1 - rate)) ** 0.5
    assert abs(both - rate**2) < 3 * spread / 1e5**0.5


@pytest.mark.parametrize(
    ("length", "rate", "span", "count"),
    [(100, 0.15, 3, 5), (64, 0.5, 4, 8), (70, 0.1, 7, 1), (10, 0.5, 5, 1)],
)
def test_spans_are_whole_apart_and_as_many_as_fit(length: int, rate: float, span: int, count: int) -> None:
    first = np.zeros(length)
    for seed in range(400):
        hidden = mask(length, rate, span, seed).numpy()
        assert hidden.sum() == count * span
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], hidden, [0]])))[: 2 * count])[::2]
        assert (runs % span == 0).all()
        first[np.argmax(hidden)] += 1
    assert first[length - span * count + 1 :].sum() == 0
    if count == 1:  # all places are as likely: chi-square far from its tail
        places = first[: length - span + 1]
        expected = 400 / len(places)
        assert ((places - expected) ** 2 / expected).sum() < len(places) + 4 * (2 * len(places)) ** 0.5


def test_a_visit_draws_anew_and_the_same_visit_the_same(listops: Task) -> None:
    one, same = (pretext_task(listops, "masked", seed=3).train for _ in range(2))
    n = len(one)  # type: ignore[arg-type]
    masks = [[(one[v * n + i].targets >= 0).tolist() for i in range(8)] for v in range(3)]
    assert masks[0] != masks[1] != masks[2] != masks[0]
    assert all(torch.equal(one[n + i].inputs, same[n + i].inputs) for i in range(8))
    other = pretext_task(listops, "masked", seed=4).train
    assert any(not torch.equal(one[i].inputs, other[i].inputs) for i in range(8))
    # In the order of training every epoch is another visit, whatever the position it goes on from.
    stream = iter(Shuffled(n, 4, 0, 3 * n - 2, Share(), one.renewed))  # type: ignore[attr-defined]
    assert [i // n for i in next(stream)] == [2, 2, 3, 3]


def test_hidden_tokens_read_as_an_id_of_their_own(listops: Task) -> None:
    task = pretext_task(listops, "masked", rate=0.3)
    kept = [listops.train[i].inputs for i in task.train.chosen]  # type: ignore[attr-defined]
    for item, whole in zip(all_items(task.train), kept, strict=True):
        hidden = item.inputs == listops.facts["vocab_size"]
        assert torch.equal(torch.where(hidden, item.targets, item.inputs), whole)
        assert (item.targets[~hidden] == -100).all()
    batch = task.collate([task.train[i] for i in range(6)])
    behind = torch.arange(batch.inputs.shape[1]) >= batch.lengths[:, None]
    assert behind.any()
    assert (batch.targets[behind] == -100).all()
    assert (batch.inputs[behind] != listops.facts["vocab_size"]).all()


def test_hidden_values_are_not_in_what_is_read() -> None:
    task = pretext_task(pictures((3,), "rows"), "masked")
    assert task.facts["levels"] is None
    for item in all_items(task.train):
        hidden = item.inputs[:, -1].bool()
        assert item.inputs[hidden, :-1].isnan().all()
        assert torch.equal(item.targets.isnan().all(1), ~hidden)
        assert not item.inputs[~hidden].isnan().any()


@pytest.mark.parametrize("given", [{"span": 1000}, {"rate": 1e-6}])
def test_what_hides_nothing_is_refused(listops: Task, given: dict) -> None:
    with pytest.raises(ValueError, match="nothing is hidden in"):
        pretext_task(listops, "masked", **given)


def test_grey_pixels_are_asked_for_as_levels() -> None:
    source = pictures()
    task = pretext_task(source, "masked")
    assert task.facts["levels"] == 256
    which = task.train.chosen[3]  # type: ignore[attr-defined]
    item, whole = task.train[3], source.train[which].inputs[:, 0]
    asked = item.targets >= 0
    assert torch.equal(item.targets[asked].float(), whole[asked])
    assert torch.equal(asked, item.inputs[:, 1].bool())


def test_the_next_step_is_the_target_of_each(listops: Task) -> None:
    task = pretext_task(listops, "causal")
    item = task.train[2]
    assert torch.equal(item.targets[:-1], item.inputs[1:])
    assert item.targets[-1] == -100
    series = open_source("delay", length=30, lag=3, count=20)
    item = pretext_task(series, "causal").train[2]
    assert torch.equal(item.targets[:-1], item.inputs[1:])
    assert item.targets[-1].isnan().all()
    assert item.inputs.shape == (30, 1)


def test_both_of_a_pair_are_sequences_of_their_own() -> None:
    rows = [(np.arange(4 + i % 3), np.arange(7)) for i in range(30)]
    labels = np.arange(30) % 2
    parts = (np.arange(20), np.arange(20, 25), np.arange(25, 30))
    names, lengths = ["no", "yes"], np.full(30, 7)
    pairs = labelled_task(
        rows.__getitem__, labels, parts, names, "two", "two", {}, lengths=lengths, vocab_size=8, pairs=True
    )
    task = pretext_task(pairs, "masked", rate=0.5)
    assert len(task.train) == 36  # type: ignore[arg-type]
    for i in range(36):
        item = task.train[i]
        whole = torch.where(item.targets >= 0, item.targets, item.inputs)
        row = rows[task.train.chosen[i // 2]][i % 2]  # type: ignore[attr-defined]
        assert whole.tolist() == row.tolist()
    first, second = ((task.train[i].inputs == 8).tolist() for i in (1, 3))
    assert first != second


def test_nothing_but_training_inputs_is_read(listops: Task) -> None:
    task = pretext_task(listops._replace(valid=Forbidden(), test=Forbidden()), "masked")
    train, valid = task.train, task.valid
    assert isinstance(train, Pretext)
    assert isinstance(valid, Pretext)
    assert sorted([*train.chosen, *valid.chosen]) == list(range(len(listops.train)))  # type: ignore[arg-type]
    assert len(valid) == round(0.1 * len(listops.train))  # type: ignore[arg-type]
    assert task.test is valid
    assert list(all_items(train)) != []
    assert list(all_items(valid)) != []


def test_how_much_is_hidden_if_nobody_says(listops: Task) -> None:
    assert usual_rate(listops) == 0.1
    assert usual_rate(listops._replace(tokenizer=None)) == 0.15
    assert usual_rate(pictures()) == 0.5
    assert usual_rate(open_source("delay", length=30, lag=3, count=20)) == 0.25


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "masked", "rate": 0.0}, "above 0 and below 1; got 0"),
        ({"kind": "masked", "rate": 1.0}, "above 0 and below 1; got 1"),
        ({"kind": "masked", "span": 0}, "a span is one step or more"),
        ({"kind": "causal", "rate": 0.2}, "hides nothing"),
        ({"kind": "causal", "span": 2}, "hides nothing"),
    ],
)
def test_what_cannot_be_is_refused(listops: Task, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretext_task(listops, **given)


def test_another_pretext_is_refused() -> None:
    with pytest.raises(ValueError, match="masked or causal; got 'hidden'"):
        check("hidden", None, None)


def test_tasks_without_a_pretext_are_refused(listops: Task, tmp_path) -> None:
    (tmp_path / "text.txt").write_text("A horse, a horse. " * 60)
    for source, kind in ((tmp_path / "text.txt", "language"), ("seasonal", "forecasting")):
        task = open_source(str(source))
        with pytest.raises(ValueError, match=f"a {kind} task. Leave the pretraining out"):
            pretext_task(task, "masked")
    with pytest.raises(ValueError, match="two training sequences or more"):
        pretext_task(listops._replace(train=torch.utils.data.Subset(listops.train, [0])), "masked")

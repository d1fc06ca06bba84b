"""Recall: what is asked has been said before, and rules that learn nothing score what they must."""

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.recall import dictionary
from hippodrome.data.text import IGNORED


def parts(item):
    return item.tokens.numpy(), item.targets.numpy()


def test_associative_recall_asks_for_the_value_of_a_key_that_came():
    task = open_source("associative_recall", length=12, vocabulary=8, count=300)
    asked = []
    for i in range(300):
        tokens, targets = parts(task.train[i])
        assert len(tokens) == 13
        keys, values = tokens[:12:2], tokens[1:12:2]
        assert (keys < 4).all()
        assert ((values >= 4) & (values < 8)).all()
        said = {}
        for key, value in zip(keys.tolist(), values.tolist(), strict=True):
            assert said.setdefault(key, value) == value
        # Training asks at every key that came before, and nowhere else.
        again = [i for i in range(0, 13, 2) if tokens[i] in tokens[:i:2]]
        assert np.flatnonzero(targets != IGNORED).tolist() == again
        assert targets[again].tolist() == [said[key] for key in tokens[again].tolist()]
        asked.append(int(tokens[-1]))
    assert set(asked) == {0, 1, 2, 3}
    for part in (task.valid, task.test):
        for i in range(30):
            tokens, targets = parts(part[i])
            assert (targets[:-1] == IGNORED).all()
            assert targets[-1] == dictionary(tokens)[-1] != IGNORED
    assert task.facts == {"vocab_size": 8, "bytes_per_token": None}


def test_induction_asks_for_what_followed_the_special_token():
    task = open_source("induction", length=9, vocabulary=6, count=400)
    places = []
    for i in range(400):
        tokens, targets = parts(task.train[i])
        special = np.flatnonzero(tokens == 6)
        assert special.tolist() == [special[0], 9]
        assert (targets[:-1] == IGNORED).all()
        assert targets[-1] == tokens[special[0] + 1] < 6
        places.append(int(special[0]))
    assert np.bincount(places, minlength=9)[:8].min() > 25  # 50 of each, but none where nothing would follow
    assert max(places) == 7
    assert task.facts == {"vocab_size": 7, "bytes_per_token": None}


@pytest.mark.parametrize("name", ["associative_recall", "induction"])
def test_items_are_the_same_at_every_visit_and_parts_differ(name):
    task = open_source(name, count=40)
    assert (len(task.train), len(task.valid), len(task.test)) == (40, 4, 4)
    assert torch.equal(task.train[7].tokens, task.train[7].tokens)
    assert not torch.equal(task.train[0].tokens, task.test[0].tokens)
    assert not torch.equal(open_source(name, seed=1).train[0].tokens, task.train[0].tokens)
    with pytest.raises(IndexError):
        task.train[40]
    batch = task.collate([task.train[i] for i in range(3)])
    assert batch.tokens.shape == batch.targets.shape == (3, len(task.train[0].tokens))


def test_rules_that_learn_nothing():
    found = open_source("associative_recall", count=20000).naive()
    any_answer, seen = found["any answer"], found["what was seen, by frequency"]
    assert any_answer == {"nats": pytest.approx(np.log(5)), "accuracy": 0.2}
    assert seen["nats"] < any_answer["nats"]
    assert any_answer["accuracy"] < seen["accuracy"] < 1
    # With one pair the value that was seen is the answer.
    found = open_source("associative_recall", length=2, count=100).naive()
    assert found["what was seen, by frequency"] == {"nats": 0.0, "accuracy": 1.0}
    # Two ordinary tokens before the question: the one behind the special token, or with chance 1/2 both.
    found = open_source("induction", length=3, vocabulary=2, count=40000).naive()
    assert found["what was seen, by frequency"]["nats"] == pytest.approx(np.log(2) / 2, rel=0.05)
    assert found["what was seen, by frequency"]["accuracy"] == pytest.approx(0.75, rel=0.03)


@pytest.mark.parametrize("name", ["associative_recall", "induction"])
def test_a_dictionary_answers_every_question(name):
    task = open_source(name, count=300)
    for i in range(300):
        tokens, targets = parts(task.train[i])
        asked = targets != IGNORED
        assert (dictionary(tokens)[asked] == targets[asked]).all()


def test_the_dictionary_says_what_followed_last():
    assert dictionary(np.array([1, 5, 2, 1, 6, 1])).tolist() == [IGNORED, IGNORED, IGNORED, 5, IGNORED, 6]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("associative_recall", {"length": 7}, "an even length"),
        ("associative_recall", {"vocabulary": 5}, "an even vocabulary"),
        ("associative_recall", {"count": 0}, "at least one sequence"),
        ("induction", {"length": 1}, "something follows the special token"),
        ("induction", {"vocabulary": 1}, "got 30 and 1"),
        ("induction", {"lag": 3}, "no option 'lag'"),
    ],
)
def test_what_cannot_be_asked_is_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        open_source(name, **options)

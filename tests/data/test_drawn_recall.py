"""MQAR, copying, phone books and hidden facts: what is asked can be known, and is asked as the papers say."""

import time
import tracemalloc

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._drawn import collate
from hippodrome.data.mqar import BASED, chances
from hippodrome.data.recall import dictionary
from hippodrome.data.text import IGNORED

SOURCES = {
    "mqar": {},
    "selective_copying": {"length": 64, "items": 8},
    "copying": {"length": 64},
    "string_copying": {"shortest": 1},
    "phone_book": {"entries": 6},
    "passkey": {},
    "needle": {},
}


def parts(item):
    return item.tokens.numpy(), item.targets.numpy()


def text(item):
    """The bytes that are read, and the answer at the end."""
    tokens, targets = parts(item)
    return bytes(tokens.tolist()).decode(), bytes(targets[targets != IGNORED].tolist()).decode()


@pytest.mark.parametrize("filler", ["random", "zeros"])
def test_mqar_asks_once_for_every_key_at_its_second_place(filler):
    length, pairs, vocabulary = 64, 8, 256
    task = open_source("mqar", length=length, pairs=pairs, vocabulary=vocabulary, filler=filler, count=200)
    assert task.facts == {"vocab_size": vocabulary, "bytes_per_token": None}
    for i in range(200):
        tokens, targets = parts(task.train[i])
        keys, values = tokens[: 2 * pairs : 2], tokens[1 : 2 * pairs : 2]
        assert len(tokens) == length
        assert len(set(keys.tolist())) == len(set(values.tolist())) == pairs
        assert keys.min() >= 1
        assert keys.max() < vocabulary // 2 <= values.min()
        assert values.max() < vocabulary
        asked = np.flatnonzero(targets != IGNORED)
        assert sorted(tokens[asked].tolist()) == sorted(keys.tolist())
        assert (asked >= 2 * pairs).all()
        assert (asked % 2 == 0).all()
        for key, value in zip(keys, values, strict=True):
            assert (tokens == key).sum() == 2  # once in the context, once where it is asked for
            assert targets[np.flatnonzero(tokens == key)[1]] == value
        assert (dictionary(tokens)[asked] == targets[asked]).all()
        rest = np.ones(length, bool)
        rest[: 2 * pairs], rest[asked] = False, False
        assert (tokens[rest] == 0).all() == (filler == "zeros")


def test_gaps_follow_the_power_law():
    """Pearson's statistic over the slots of single pairs, 28 degrees of freedom: above 56.9 once in 1000."""
    length, rows = 60, 1500
    for exponent in (0.01, 1.0):
        task = open_source("mqar", length=length, pairs=1, vocabulary=64, exponent=exponent, count=rows)
        slots = [(int((task.train[i].targets != IGNORED).nonzero()) - 2) // 2 for i in range(rows)]
        expected = rows * chances(29, exponent)
        assert expected.min() > 5
        g = np.arange(1, 30)
        weights = g**0.01 / g if exponent == 0.01 else np.ones(29)
        np.testing.assert_allclose(expected, rows * weights / weights.sum(), rtol=1e-12)
        found = np.bincount(slots, minlength=29)
        assert (np.square(found - expected) / expected).sum() < 56.9


def test_random_filler_is_every_token_but_the_keys():
    task = open_source("mqar", length=64, pairs=2, vocabulary=8, count=300)
    seen, expected = np.zeros(8), np.zeros(8)
    for i in range(300):
        tokens, targets = parts(task.train[i])
        keys = set(tokens[:4:2].tolist())
        rest = tokens[4:][targets[4:] == IGNORED].tolist()
        assert not keys & set(rest)
        seen += np.bincount(rest, minlength=8)
        expected[[token for token in range(8) if token not in keys]] += len(rest) / 6
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected)).all()


def test_the_rules_that_learn_nothing_score_what_they_must():
    """A value at random is right 2 times in V; one of D values seen once each, 1 time in D."""
    found = open_source("mqar", vocabulary=256, filler="zeros", pairs=8, count=2000).naive()
    assert found["any answer"] == {"nats": pytest.approx(np.log(128)), "accuracy": 2 / 256}
    assert found["what was seen, by frequency"] == {
        "nats": pytest.approx(np.log(8)),
        "accuracy": pytest.approx(1 / 8),
    }


def test_segments_are_mixed_in_one_task():
    task = open_source("mqar", vocabulary=64, segments="16:2x30,32:4x10")
    assert (len(task.train), len(task.valid), len(task.test)) == (40, 4, 4)
    lengths = [len(task.train[i].tokens) for i in range(40)]
    assert lengths == [16] * 30 + [32] * 10
    assert int((task.train[39].targets != IGNORED).sum()) == 4
    batch = task.collate([task.train[0], task.train[39]])
    assert batch.tokens.shape == (2, 32)
    assert (batch.targets[0, 16:] == IGNORED).all()
    with pytest.raises(IndexError):
        task.train[40]
    based = open_source("mqar", segments="based")
    assert len(based.train) == 180_000
    assert BASED.count(":") == 5


@pytest.mark.parametrize("name", ["selective_copying", "copying"])
def test_copying_asks_for_the_data_in_order(name):
    task = open_source(name, length=40, items=5, vocabulary=10, count=300)
    places = []
    for i in range(300):
        tokens, targets = parts(task.train[i])
        data = np.flatnonzero(tokens < 8)
        assert len(data) == 5
        assert (tokens[40:] == 9).all()
        assert (tokens[:40] == 8).sum() == 35
        assert targets[40:].tolist() == tokens[data].tolist()
        assert (targets[:40] == IGNORED).all()
        places += data.tolist()
    if name == "copying":
        assert set(places) == set(range(5))
    else:  # every place as often: 37.5 times each
        assert np.square(np.bincount(places, minlength=40) - 37.5).sum() / 37.5 < 73
    found = task.naive()["any answer"]
    assert found == {"nats": pytest.approx(np.log(8)), "accuracy": 1 / 8}


def test_strings_come_twice():
    task = open_source("string_copying", shortest=3, length=7, vocabulary=5, count=200)
    lengths = set()
    for i in range(200):
        tokens, targets = parts(task.train[i])
        n = len(tokens) // 2
        lengths.add(n)
        assert tokens[n] == 5
        assert tokens[:n].tolist() == tokens[n + 1 :].tolist() == targets[n:-1].tolist()
        assert targets[-1] == 6
        assert (targets[:n] == IGNORED).all()
    assert lengths == {3, 4, 5, 6, 7}


@pytest.mark.parametrize("question_first", [False, True])
def test_a_number_stands_in_the_book_once(question_first):
    task = open_source("phone_book", entries=9, digits=8, question_first=question_first, count=50)
    for i in range(50):
        read, answer = text(task.test[i % 5])
        head, book, asked = read.split("\n\n") if question_first else ("", *read.split("\n\n"))
        lines = dict(line.split(": ") for line in book.split("\n"))
        *worked, last = asked.split("\n")
        name = last.split(": ")[0]
        assert len(lines) == len(set(lines.values())) == 9
        assert lines[name] == answer
        assert read.count(answer) == 1
        assert len(answer) == 8
        assert last == f"{name}: {answer[:-1]}"
        assert head == (f"{name}?" if question_first else "")
        assert len(worked) == 2
        assert all(lines[line.split(": ")[0]] == line.split(": ")[1] for line in worked)
        assert name not in {line.split(": ")[0] for line in worked}
        # Training asks for the numbers of the worked look-ups too.
        tokens, targets = parts(task.train[i])
        assert (targets != IGNORED).sum() == 24
        shown, places = bytes(tokens.tolist()).decode(), np.flatnonzero(targets != IGNORED)
        for start in places[::8].tolist():
            number = bytes(targets[start : start + 8].tolist()).decode()
            assert shown[start] == " "
            assert shown[start + 1 : start + 8] == number[:7]


@pytest.mark.parametrize("name", ["passkey", "needle"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_what_is_hidden_stands_where_it_was_asked_to(name, place):
    task = open_source(name, length=900, place=place, count=20)
    fact = "The pass key is " if name == "passkey" else "The secret word of "
    for i in range(20):
        read, answer = text(task.train[i])
        assert len(read) == 900
        question = read.index("What is the ")
        assert fact in read[:question]
        assert answer in read[:question]
        line_end = ". Remember it." if name == "passkey" else ". "
        assert f"{answer}{line_end}" in read
        assert read.endswith(f" is {answer[:-1]}")
        where = read.index(fact)
        size = question - len(read[where:].split(answer)[0])
        assert abs(where - place * (question - 60)) < 70, (where, size)
    drawn = open_source(name, length=2000, count=40)
    found = [text(drawn.train[i])[0].index(fact) for i in range(40)]
    assert min(found) < 400
    assert max(found) > 1400


@pytest.mark.parametrize("name", SOURCES)
def test_items_are_the_same_at_every_visit_and_parts_differ(name):
    task, other = (open_source(name, count=40, seed=seed, **SOURCES[name]) for seed in (0, 1))
    assert (len(task.train), len(task.valid), len(task.test)) == (40, 4, 4)
    assert torch.equal(task.train[7].tokens, task.train[7].tokens)
    assert not torch.equal(task.train[0].tokens, task.test[0].tokens)
    assert not torch.equal(task.train[0].tokens, other.train[0].tokens)
    batch = task.collate([task.train[i] for i in range(3)])
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert bool(task.facts.get("whole_answers")) == (name != "mqar")
    assert all(np.isfinite(v) for rule in task.naive().values() for v in rule.values())


def test_short_rows_are_filled_up_at_the_right():
    task = open_source("string_copying", shortest=1, length=9, count=30)
    items = [task.train[i] for i in range(30)]
    batch = collate(items)
    for row, item in enumerate(items):
        t = len(item.tokens)
        assert torch.equal(batch.tokens[row, :t], item.tokens)
        assert torch.equal(batch.targets[row, :t], item.targets)
        assert (batch.targets[row, t:] == IGNORED).all()


def test_drawing_is_fast_and_small():
    """A batch of 64 rows of 4,096 tokens takes some milliseconds: it must not hold up training."""
    task = open_source("selective_copying")
    tracemalloc.start()
    start = time.process_time()
    task.collate([task.train[i] for i in range(64)])
    spent, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 0.2
    assert peak < 40 * 2**20


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mqar", {"length": 63}, "an even length"),
        ("mqar", {"length": 64, "pairs": 17}, "four tokens for each pair"),
        ("mqar", {"vocabulary": 16}, "an even number of 18 or more"),
        ("mqar", {"filler": "noise"}, "'random' tokens or with 'zeros'"),
        ("mqar", {"segments": "64:4"}, "length:pairsxsequences"),
        ("mqar", {"segments": "64:4x0"}, "at least one sequence"),
        ("selective_copying", {"length": 4, "items": 5}, "5 items in length 4"),
        ("copying", {"vocabulary": 3}, "two data tokens"),
        ("string_copying", {"shortest": 9, "length": 8}, "shortest 9, longest 8"),
        ("phone_book", {"entries": 2}, "more entries than worked examples"),
        ("phone_book", {"entries": 11, "digits": 1}, "that can all differ"),
        ("passkey", {"length": 100}, "bytes; got length 100"),
        ("passkey", {"place": 1.5}, "from 0, its start, to 1"),
        ("passkey", {"digits": 0}, "1 to 18 digits"),
        ("needle", {"length": 90}, "Take a longer one"),
        ("needle", {"pairs": 3}, "no option 'pairs'"),
    ],
)
def test_what_cannot_be_drawn_is_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        open_source(name, **options)

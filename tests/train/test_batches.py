"""The order of batches: a function of seed and position, every row once an epoch, shared among processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.shapes import SeriesBatch, TokenBatch
from hippodrome.train.batches import InOrder, Share, Shuffled, moved


def taken(order: Shuffled, batches: int) -> list[list[int]]:
    stream = iter(order)
    return [next(stream) for _ in range(batches)]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), batch=st.integers(1, 9), seed=st.integers(0, 2**31), skip=st.integers(0, 7))
def test_a_run_continues_from_its_position(rows, batch, seed, skip):
    whole = taken(Shuffled(rows, batch, seed, 0, Share()), 10)
    rest = taken(Shuffled(rows, batch, seed, skip * batch, Share()), 10 - skip)
    assert whole[skip:] == rest


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), batch=st.integers(1, 5), world=st.integers(1, 4))
def test_processes_share_the_stream_of_one(rows, batch, world):
    alone = taken(Shuffled(rows, batch * world, 3, 0, Share()), 6)
    parts = [taken(Shuffled(rows, batch, 3, 0, Share(rank, world)), 6) for rank in range(world)]
    assert alone == [[row for part in parts for row in part[i]] for i in range(6)]


def test_every_row_comes_once_an_epoch_and_epochs_differ():
    flat = [row for batch in taken(Shuffled(10, 4, 0, 0, Share()), 5) for row in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]


def test_data_that_is_new_on_each_visit_is_told_the_visit():
    plain = [row for batch in taken(Shuffled(5, 2, 7, 4, Share()), 6) for row in batch]
    told = [row for batch in taken(Shuffled(5, 2, 7, 4, Share(), True), 6) for row in batch]
    assert [row % 5 for row in told] == plain
    assert [row // 5 for row in told] == [place // 5 for place in range(4, 16)]


def test_nothing_to_train_on_is_told():
    with pytest.raises(ValueError, match="training set is empty"):
        Shuffled(0, 4, 0, 0, Share())


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 30), batch=st.integers(1, 7), world=st.integers(1, 4))
def test_evaluation_sees_every_row_once(rows, batch, world):
    orders = [InOrder(rows, batch, None, Share(rank, world)) for rank in range(world)]
    assert len({len(order) for order in orders}) == 1
    seen = [i for order in orders for real, b in zip(order.real, order, strict=True) if real for i in b]
    assert sorted(seen) == list(range(rows))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), batch=st.integers(1, 7), world=st.integers(1, 3), batches=st.integers(1, 5))
def test_a_partial_evaluation_is_spread_over_the_set(rows, batch, world, batches):
    orders = [InOrder(rows, batch, batches, Share(rank, world)) for rank in range(world)]
    seen = [i for order in orders for real, b in zip(order.real, order, strict=True) if real for i in b]
    count = min(rows, batch * batches)
    assert len(seen) == len(set(seen)) == count
    # One row out of each of as many equal pieces of the set.
    assert sorted((2 * i + 1) * count // (2 * rows) for i in seen) == list(range(count))


def test_a_partial_evaluation_of_grouped_rows_sees_every_group():
    (batch,) = InOrder(1000, 20, 1, Share()).batches
    assert {row // 100 for row in batch} == set(range(10))


def test_batches_move_whole():
    device = torch.device("cpu")
    batch = moved(
        TokenBatch(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)), device
    )
    assert isinstance(batch, TokenBatch)
    assert batch.resets is None
    assert isinstance(moved(SeriesBatch(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)), device), SeriesBatch)

"""What is peculiar to the encoder: vectors of length 1, the loss over all candidates, padding unread."""

import math

import pytest
import torch

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.mamba import Mamba
from hippodrome.models.encoder import EncoderModel
from hippodrome.shapes import PairBatch
from hippodrome.testing.models import check_loss, check_metrics, prepared


def test_loss_is_the_cross_entropy_over_the_candidates_of_all_rows_from_both_sides() -> None:
    model, batch = prepared(EncoderModel.example()), EncoderModel.example_batch()
    one = lambda ids, n: model.encode(ids[None, :n], torch.tensor([n]))[0]  # noqa: E731
    queries = [one(row, int(n)) for row, n in zip(batch.queries, batch.query_lengths, strict=True)]
    candidates = [one(batch.candidates[i, j], int(batch.lengths[i, j])) for i in range(3) for j in range(2)]
    terms = []
    for i in range(3):
        ahead = torch.stack([queries[i] @ c for c in candidates]) / 0.5
        back = torch.stack([q @ candidates[2 * i] for q in queries]) / 0.5
        terms += [-ahead.log_softmax(0)[2 * i], -back.log_softmax(0)[i]]
    torch.testing.assert_close(model.loss(batch), torch.stack(terms).mean(), rtol=1e-12, atol=0)
    right = sum(bool(queries[i] @ candidates[2 * i] > queries[i] @ candidates[2 * i + 1]) for i in range(3))
    assert float(model.metrics(batch)["accuracy"].total) == right


def test_vectors_have_length_one_and_read_nothing_behind_their_end() -> None:
    blocks = [Block(Bidirectional(Mamba(8), Mamba(8)))]
    for pooling in ("mean", "last"):
        model = prepared(EncoderModel(Stack(blocks), 11, pooling=pooling))  # type: ignore[arg-type]
        batch = EncoderModel.example_batch()
        vectors = model.encode(batch.queries, batch.query_lengths)  # type: ignore[operator]
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(3, dtype=torch.float64))
        for row, n in zip(range(3), batch.query_lengths.tolist(), strict=True):
            alone = model.encode(batch.queries[row, None, :n], torch.tensor([n]))  # type: ignore[operator]
            torch.testing.assert_close(alone[0], vectors[row], rtol=1e-10, atol=1e-12)
        if pooling == "mean":  # at the last token the branch from the end has read that token alone
            check_loss(model, batch)
        check_metrics(model, batch)


def test_the_last_vector_of_a_stream_is_that_of_the_row() -> None:
    model, batch = prepared(EncoderModel.example()), EncoderModel.example_batch()
    whole = model.encode(batch.queries, torch.tensor([7, 7, 7]))
    torch.testing.assert_close(model(batch.queries)[0][:, -1], whole, rtol=1e-12, atol=1e-12)


def test_a_few_steps_tell_rows_apart() -> None:
    numbers = torch.Generator().manual_seed(0)
    rows = torch.randint(11, (16, 6), generator=numbers)
    batch = PairBatch(rows, torch.full((16,), 6), rows.flip(1)[:, None], torch.full((16, 1), 6))
    model = EncoderModel(Stack.example(), 11)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = float(model.loss(batch).detach())
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert first > 0.5 * math.log(16)
    assert float(model.loss(batch).detach()) < first / 3


def test_refusals() -> None:
    with pytest.raises(ValueError, match="above 0"):
        EncoderModel(Stack.example(), 11, temperature=0.0)

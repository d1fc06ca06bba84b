"""Metrics of long rows in chunks, and of answers as a whole."""

import pytest
import torch

from hippodrome import config
from hippodrome.models.language import LanguageModel
from hippodrome.models.regression import RegressionModel
from hippodrome.shapes import TokenBatch


def model(pattern: str, **options: object) -> LanguageModel:
    torch.manual_seed(0)
    stack = config.stack_spec(pattern, 8, len(pattern.split("+")))
    made = config.build({"kind": "language", "vocab_size": 7, "backbone": stack, **options})
    return made.double().eval()


def batch(rows: int = 3, steps: int = 29) -> TokenBatch:
    numbers = torch.Generator().manual_seed(1)
    tokens = torch.randint(7, (rows, steps + 1), generator=numbers)
    targets = tokens[:, 1:].clone()
    targets[torch.rand(rows, steps, generator=numbers) < 0.5] = -100
    return TokenBatch(tokens[:, :-1], targets)


@pytest.mark.parametrize("pattern", ["mamba+attention", "mamba2+gla", "h3+s4d"])
@pytest.mark.parametrize("chunk", [5, 16, 100])
def test_chunks_say_what_the_whole_says(pattern: str, chunk: int) -> None:
    made, rows = model(pattern, whole_answers=True), batch()
    resets = torch.zeros_like(rows.tokens, dtype=torch.bool)
    resets[1, [5, 17]] = True
    for marks in (None, resets):
        whole = made.metrics(rows._replace(resets=marks))
        parts = made.metrics_in_chunks(rows._replace(resets=marks), chunk)
        for name in ("nats", "bits_per_byte", "accuracy", "exact"):
            assert parts[name].count == whole[name].count
            assert float(parts[name].total) == pytest.approx(float(whole[name].total), rel=1e-9)


def test_exact_counts_rows_that_are_right_everywhere() -> None:
    made, rows = model("min_gru", whole_answers=True), batch(rows=4)
    with torch.no_grad():
        guess = made(rows.tokens)[0].argmax(-1)
    targets = torch.where(rows.targets >= 0, guess, -100)
    targets[3] = -100  # asks for nothing: neither right nor wrong
    wrong = int((targets[1] >= 0).nonzero()[0])
    targets[1, wrong] = (guess[1, wrong] + 1) % 7
    found = made.metrics(TokenBatch(rows.tokens, targets))
    assert (float(found["exact"].total), found["exact"].count) == (2.0, 3)
    asked = int((targets >= 0).sum())
    assert (float(found["accuracy"].total), found["accuracy"].count) == (asked - 1.0, asked)
    assert "exact" not in model("min_gru").metrics(rows)


def test_exact_is_what_greedy_generation_spells() -> None:
    """Up to its first error it reads what teacher forcing reads, so no more and no fewer rows are right."""
    made, rows = model("min_gru", whole_answers=True), batch(rows=40, steps=10)
    targets = rows.targets.clone()
    targets[:, :8], targets[:, 8] = -100, rows.tokens[:, 9]
    targets[:, 9] = torch.arange(40) % 7
    right = 0
    for tokens, answer in zip(rows.tokens, targets[:, 8:], strict=True):
        said = tokens[:9].tolist()
        for _ in range(2):
            said.append(int(made(torch.tensor([said]))[0][0, -1].argmax()))
        right += said[9:] == answer.tolist()
    found = made.metrics(TokenBatch(rows.tokens, targets))["exact"]
    assert (int(found.total), found.count) == (right, 40)


def test_the_head_reads_a_chunk_at_a_time() -> None:
    made = model("min_gru")
    seen = []
    made.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    made.metrics_in_chunks(batch(steps=1000), 64)
    assert max(seen) == 64
    assert sum(seen) == 1000


def test_what_cannot_be_read_in_chunks_is_named() -> None:
    with pytest.raises(ValueError, match="1 token or more; got 0"):
        model("min_gru").metrics_in_chunks(batch(), 0)
    other = RegressionModel.example()
    with pytest.raises(ValueError, match="a RegressionModel reads a row as a whole"):
        other.metrics_in_chunks(RegressionModel.example_batch(), 4)

"""The cuts against closed forms, and the frequencies of draws against the probabilities."""

import pytest
import torch

from hippodrome.generate import Sampler

CHANCES = torch.tensor([[0.5, 0.25, 0.15, 0.1]], dtype=torch.float64)
LOGITS = CHANCES.log()


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Sampler(), [0.5, 0.25, 0.15, 0.1]),
        (Sampler(temperature=0.5), [50 / 69, 12.5 / 69, 4.5 / 69, 2 / 69]),
        (Sampler(top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampler(top_k=9), [0.5, 0.25, 0.15, 0.1]),
        (Sampler(top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampler(top_p=0.76), [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (Sampler(top_p=0.01), [1, 0, 0, 0]),
        (Sampler(min_p=0.4), [2 / 3, 1 / 3, 0, 0]),
        (Sampler(top_k=3, top_p=0.8), [2 / 3, 1 / 3, 0, 0]),
    ],
)
def test_the_distribution_is_the_closed_form(sampler, expected):
    found = sampler.probabilities(LOGITS)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_order_of_the_vocabulary_does_not_matter():
    order = torch.tensor([2, 0, 3, 1])
    sampler = Sampler(temperature=0.7, top_k=3, top_p=0.9, min_p=0.05)
    torch.testing.assert_close(
        sampler.probabilities(LOGITS[:, order]), sampler.probabilities(LOGITS)[:, order]
    )


def test_draws_have_the_frequencies():
    n = 20_000
    draws = Sampler(top_k=3).choose(LOGITS.expand(n, -1), torch.Generator().manual_seed(0))
    frequencies = torch.bincount(draws, minlength=4) / n
    expected = Sampler(top_k=3).probabilities(LOGITS)[0].float()
    assert frequencies[3] == 0
    assert (frequencies - expected).abs().max() < 4 * (0.25 / n) ** 0.5


def test_greedy_takes_the_likeliest_even_of_infinite_logits():
    logits = torch.tensor([[0.0, torch.inf, 1.0], [3.0, -torch.inf, 1.0]])
    assert Sampler(temperature=0.0).choose(logits).tolist() == [1, 0]

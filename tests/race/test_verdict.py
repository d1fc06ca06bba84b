"""The verdict: which sentence is said when, and numbers in a form that people read."""

import math

import pytest
from race_example import example

from hippodrome.race.result import Estimate, student
from hippodrome.race.verdict import (
    count,
    duration,
    number,
    quality,
    savings,
    size,
    verdict,
    welch_half,
    with_interval,
)


def test_the_best_on_validation_is_taken_with_what_it_costs() -> None:
    result = example()
    words = verdict(result)
    assert words[0].startswith("Take mamba2: 1.485 ± 0.013 nats per token on the test set.")
    assert "402k parameters, 18 KiB of state" in words[1]
    assert words[-1] == "lru diverged: the loss became NaN at step 120 with a learning rate of 0.01."


def test_what_reads_both_ways_is_said_to_have_no_state() -> None:
    result = example()
    best = result.standings[0]
    best.state_bytes = best.bytes_per_token = best.step_seconds = None
    assert "402k parameters, no state, since it reads a sequence from both ends" in verdict(result)[1]
    assert "one more token" not in verdict(result)[1]


def test_a_clear_difference_and_a_noisy_one_are_told_apart() -> None:
    clear = example()
    assert "more than the seeds' noise" in " ".join(verdict(clear))
    close = example()
    close.standings[1].valid = Estimate.of([v + 0.001 for v in close.standings[0].valid.values])
    text = " ".join(verdict(close))
    assert "within the noise of the seeds" in text
    assert "take whichever is cheaper" in text


def test_one_seed_admits_that_luck_is_unknown() -> None:
    assert "luck is not known" in " ".join(verdict(example(seeds=1)))


def test_an_accuracy_of_one_seed_is_judged_by_its_rows() -> None:
    result = example("classification", seeds=1)
    result.details["rows"] = {"valid": 50}
    assert "within the noise of 50 validation rows" in " ".join(verdict(result))
    result.details["rows"] = {"valid": 1_000_000}
    assert "more than the noise of 1,000,000 validation rows" in " ".join(verdict(result))


def test_a_runner_up_that_leads_on_test_is_named() -> None:
    result = example()
    result.standings[1].test = Estimate.of([1.0, 1.01, 1.02])
    assert "On the test set it is even ahead" in " ".join(verdict(result))


def test_a_tie_is_neither_ahead_nor_behind() -> None:
    result = example("classification")
    best = result.standings[0].test
    attention = next(s for s in result.standings if s.name == "attention")
    attention.test = best
    result.naive = {"majority class": {"accuracy": best.mean}}
    words = " ".join(verdict(result))
    assert "Against attention it is level on the test set" in words
    assert "which is as good: nothing here was worth training" in words


def test_attention_is_met_with_the_length_that_beats_it() -> None:
    assert "faster than attention's from 1,024 tokens on" in " ".join(verdict(example()))
    never = example()
    never.standings[0].faster_than_attention_from = None
    assert "Up to 16,384 tokens its forward pass does not overtake" in " ".join(verdict(never))


def test_a_naive_rule_that_wins_is_admitted() -> None:
    result = example("forecasting")
    assert "seasonal naive, scores 0.5120." in " ".join(verdict(result))
    result.naive["seasonal naive"]["mse"] = 0.01
    assert "nothing here was worth training" in " ".join(verdict(result))


def test_savings_below_a_tenth_are_not_told() -> None:
    a, b = example().standings[:2]
    assert "50 % of the state" in savings(a, b)
    assert savings(a, a) == ""


def test_the_interval_is_students() -> None:
    made = Estimate.of([1.0, 2.0, 3.0])
    assert made.mean == 2
    assert made.half == pytest.approx(4.303 / math.sqrt(3))
    assert Estimate.of([1.0]).half is None
    assert student(1) == 12.706
    assert student(1000) == pytest.approx(1.96, abs=0.01)


def test_welch_with_equal_spread_is_the_two_sample_interval() -> None:
    a, b = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    assert welch_half(a, b) == pytest.approx(2.776 * math.sqrt(2 / 3))
    assert welch_half([1.0, 1.0], [2.0, 2.0]) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (number(1234567), "1,234,567"),
        (number(1.23456), "1.235"),
        (number(0.0123456), "0.01235"),
        (number(123.456), "123.5"),
        (number(0), "0"),
        (number(2.5e-6), "2.5e-06"),
        (size(1536), "1.5 KiB"),
        (size(512), "512 B"),
        (duration(8.5e-4), "850 µs"),
        (duration(0.0012), "1.2 ms"),
        (duration(310), "5 min 10 s"),
        (duration(7500), "2 h 5 min"),
        (count(402_000), "402k"),
        (count(1_250_000), "1.25M"),
        (quality(0.9731, "accuracy"), "97.31 %"),
        (with_interval(Estimate(mean=0.97312, half=0.0042, values=[]), "accuracy"), "97.31 ± 0.42 %"),
        (with_interval(Estimate(mean=1.4834, half=0.0131, values=[]), "nats"), "1.483 ± 0.013"),
    ],
)
def test_numbers_read_well(text: str, value: str) -> None:
    assert text == value

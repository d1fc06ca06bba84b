"""One row's choices: against transformers' processors, closed forms, frequencies, and rows at once."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hippodrome.generate import _cuts
from hippodrome.generate.sampling import Chooser, Sampler

VOCAB = 9000
"""Beyond the size below which rows are worked through directly."""


def logits_of(seed: int, vocab: int = VOCAB, scale: float = 2.0, dtype=torch.float64) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return scale * torch.randn(vocab, generator=numbers, dtype=dtype)


class Stairs:
    """Chance that goes through equal steps, so that draws count out the whole distribution."""

    def __init__(self, steps: int) -> None:
        self.at, self.steps = 0, steps

    def random(self) -> float:
        self.at += 1
        return (self.at - 0.5) / self.steps


def rivals(sampler: Sampler) -> LogitsProcessorList:
    """The same rules as transformers has them."""
    found = LogitsProcessorList()
    if sampler.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(sampler.repetition_penalty))
    if sampler.logit_bias:
        found.append(SequenceBiasLogitsProcessor([[[k], v] for k, v in sampler.logit_bias.items()]))
    if sampler.temperature not in (0.0, 1.0):
        found.append(TemperatureLogitsWarper(sampler.temperature))
    if sampler.top_k is not None:
        found.append(TopKLogitsWarper(sampler.top_k))
    if sampler.top_p is not None:
        found.append(TopPLogitsWarper(sampler.top_p))
    if sampler.min_p is not None:
        found.append(MinPLogitsWarper(sampler.min_p))
    return found


@pytest.mark.parametrize("vocab", [200, VOCAB])
@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(0.7),
        Sampler(1.0, top_k=40),
        Sampler(0.8, top_p=0.9),
        Sampler(1.3, min_p=0.1),
        Sampler(0.6, top_k=50, top_p=0.8, min_p=0.05),
        Sampler(0.8, top_p=0.6, repetition_penalty=1.7, logit_bias={3: 4.0, 11: -2.5}),
    ],
    ids=str,
)
def test_draws_count_out_the_distribution_of_transformers(sampler, vocab):
    logits, prompt = logits_of(1, vocab), [3, 7, 7, 20, 150]
    expected = rivals(sampler)(torch.tensor([prompt]), logits[None].clone()).softmax(-1)[0]
    steps = 4000
    chooser = Chooser(sampler, vocab_size=vocab, prompt=prompt)
    counts = np.zeros(vocab)
    chooser._chance = Stairs(steps)  # type: ignore[assignment]
    remember, chooser._remember = chooser._remember, lambda token: None  # type: ignore[method-assign]
    for _ in range(steps):
        counts[chooser.choose(logits).id] += 1
    # Steps of equal size meet each stretch of the sums to within one.
    assert np.abs(counts - steps * expected.numpy()).max() < 1.01
    assert not counts[expected.numpy() == 0].any()
    remember(0)


@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(0.7, 30), Sampler(1.1, None, 0.8), Sampler(0.9, 60, 0.9, 0.02)]
)
def test_a_chooser_draws_as_rows_at_once_do(sampler):
    logits = torch.stack([logits_of(i, dtype=torch.float64) for i in range(6)])
    choosers = [Chooser(sampler, vocab_size=VOCAB, seed=i) for i in range(6)]
    chance = torch.tensor([Chooser(sampler, vocab_size=VOCAB, seed=i).uniform() for i in range(6)])
    alone = [chooser.choose(row).id for chooser, row in zip(choosers, logits, strict=True)]
    assert sampler.draw(logits, chance.double()).tolist() == alone


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.9999])
def test_the_nucleus_is_that_of_a_sort(share, dtype):
    numbers = np.random.default_rng(0)
    for spread in (0.0, 0.5, 3.0, 30.0):
        x = numbers.normal(size=20_000) * spread
        # Many equal weights, as bfloat16 makes them.
        weights = np.exp((x - x.max()).astype(np.float16).astype(dtype))
        order = np.argsort(-weights, kind="stable")
        held = weights[order].cumsum(dtype=np.float64)
        count = int(_cuts.nucleus(weights, share).sum())
        kept = np.flatnonzero(_cuts.nucleus(weights, share))
        assert set(kept) == set(order[:count])
        # Float32 sums the total in another order, so the edge may be off by what that rounds.
        slack = 1e-9 if dtype == np.float64 else 1e-5
        assert held[count - 1] >= share * held[-1] * (1 - slack)
        assert count == 1 or held[count - 2] < share * held[-1] * (1 + slack)


def test_penalties_are_the_closed_form():
    sampler = Sampler(0.0, repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    logits = torch.tensor([4.0, 3.0, -1.0, 2.9, 0.0], dtype=torch.float64)
    chooser = Chooser(sampler, vocab_size=5, prompt=[1, 2, 2])
    # After the penalty of the prompt: 4, 1.5, -2, 2.9, 0.
    assert chooser.choose(logits).id == 0
    # Written once: 4 / 2 - 0.5 - 0.25.
    np.testing.assert_allclose(chooser._edited(logits.numpy()), [1.25, 1.5, -2.0, 2.9, 0.0], rtol=1e-12)
    assert chooser.choose(logits).id == 3
    assert chooser.choose(logits).id == 1
    assert chooser.choose(logits).id == 0
    # Token 0 was written twice: 4 / 2 - 0.5 - 2 * 0.25; 1 and 3 once each.
    np.testing.assert_allclose(chooser._edited(logits.numpy()), [1.0, 0.75, -2.0, 0.7, 0.0], rtol=1e-12)
    assert torch.equal(logits, torch.tensor([4.0, 3.0, -1.0, 2.9, 0.0], dtype=torch.float64))


def test_many_tokens_are_remembered():
    chooser = Chooser(Sampler(0.0, frequency_penalty=1.0), vocab_size=300)
    flat = torch.zeros(300)
    assert [chooser.choose(flat).id for _ in range(600)] == [*range(300), *range(300)]


def test_a_bias_forbids_and_forces():
    logits = torch.tensor([1.0, 5.0, 2.0])
    assert Chooser(Sampler(0.0, logit_bias={1: -math.inf}), vocab_size=3).choose(logits).id == 2
    forced = Chooser(Sampler(1.0, logit_bias={0: 100.0}), vocab_size=3, seed=0)
    assert {forced.choose(logits).id for _ in range(50)} == {0}


def test_log_probabilities_are_those_of_the_raw_softmax():
    logits = logits_of(3)
    expected = logits.log_softmax(-1)
    sampler = Sampler(0.5, top_k=5, repetition_penalty=1.5, logit_bias={4: 100.0})
    chosen = Chooser(sampler, vocab_size=VOCAB, prompt=[1, 4], logprobs=4, seed=1).choose(logits)
    assert chosen.id == 4
    assert chosen.logprob == pytest.approx(float(expected[4]), rel=1e-12)
    values, ids = expected.topk(4)
    assert [token for token, _ in chosen.top] == ids.tolist()
    assert [value for _, value in chosen.top] == pytest.approx(values.tolist(), rel=1e-12)
    assert math.isnan(Chooser(sampler, vocab_size=VOCAB).choose(logits).logprob)
    assert Chooser(sampler, vocab_size=VOCAB, logprobs=0).choose(logits).top == ()
    half = Chooser(Sampler(0.0), vocab_size=VOCAB, logprobs=1).choose(logits.bfloat16())
    exact = logits.bfloat16().float().log_softmax(-1)
    assert half.logprob == pytest.approx(float(exact.max()), rel=1e-5)


def test_of_equal_logits_the_first_id_is_named_first():
    told = Chooser(Sampler(0.0), vocab_size=6, logprobs=3).choose(torch.tensor([0.0, 2, 1, 2, 2, 2]))
    assert told.id == 1
    assert [token for token, _ in told.top] == [1, 3, 4]


def test_seeds_reproduce_and_a_row_goes_on_where_it_was_put_down():
    sampler = Sampler(0.9, top_p=0.9, repetition_penalty=1.2, frequency_penalty=0.3)
    rows = [logits_of(i, 300) for i in range(20)]

    def ids(chooser: Chooser, some: list) -> list[int]:
        return [chooser.choose(row).id for row in some]

    first = Chooser(sampler, vocab_size=300, seed=5, prompt=[1, 2])
    whole = ids(first, rows)
    assert first.drawn == 20
    assert ids(Chooser(sampler, vocab_size=300, seed=5, prompt=[1, 2]), rows) == whole
    assert ids(Chooser(sampler, vocab_size=300, seed=-5, prompt=[1, 2]), rows) != whole
    resumed = Chooser(sampler, vocab_size=300, seed=5, prompt=[1, 2], output=whole[:9], drawn=9)
    assert ids(resumed, rows[9:]) == whole[9:]
    unseeded = Chooser(sampler, vocab_size=300, prompt=[1, 2])
    found = ids(unseeded, rows)
    assert ids(Chooser(sampler, vocab_size=300, prompt=[1, 2], seed=unseeded.seed), rows) == found


def test_padding_of_the_vocabulary_is_never_chosen():
    logits = torch.zeros(64)
    logits[50:] = 9.0
    chooser = Chooser(Sampler(), vocab_size=50, seed=0, logprobs=3)
    found = [chooser.choose(logits) for _ in range(100)]
    assert max(one.id for one in found) < 50
    assert found[0].logprob == pytest.approx(-math.log(50), rel=1e-6)


class OnlyEven:
    """A constraint that lets even ids follow, and counts what it is told."""

    done = False

    def __init__(self) -> None:
        self.told: list[int] = []

    def mask_(self, logits: torch.Tensor) -> None:
        logits[1::2] = -torch.inf

    def accept(self, token: int) -> None:
        self.told.append(token)

    def copy(self) -> "OnlyEven":
        return self


def test_a_constraint_holds_and_is_told_what_came():
    constraint, logits = OnlyEven(), logits_of(0, 40)
    before = logits.clone()
    chooser = Chooser(Sampler(2.0), vocab_size=40, seed=0, constraint=constraint, logprobs=0)
    found = [chooser.choose(logits) for _ in range(30)]
    assert all(one.id % 2 == 0 for one in found)
    assert constraint.told == [one.id for one in found]
    assert torch.equal(logits, before)
    assert found[0].logprob == pytest.approx(float(before.log_softmax(-1)[found[0].id]))


@pytest.mark.parametrize("temperature", [1e-30, 1e-46, 1e-320])
def test_a_tiny_temperature_takes_the_likeliest(temperature):
    for dtype in (torch.float32, torch.float64):
        logits = logits_of(2, dtype=dtype)
        sampler = Sampler(temperature, top_p=0.9)
        assert Chooser(sampler, vocab_size=VOCAB).choose(logits).id == int(logits.argmax())
        assert sampler.choose(logits[None]).tolist() == [int(logits.argmax())]


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (torch.tensor([0.0, torch.nan, 1.0]), "1 of 3 are NaN"),
        (torch.full((3,), -torch.inf), "all logits are minus infinity"),
        (torch.zeros(2), "needs a logit for each; got 2"),
    ],
)
def test_logits_that_cannot_be_chosen_from_are_told(logits, said):
    for sampler in (Sampler(0.0), Sampler(0.8, 2, 0.9)):
        with pytest.raises(ValueError, match=said):
            Chooser(sampler, vocab_size=3).choose(logits)


@pytest.mark.parametrize(
    ("sampler", "options", "said"),
    [
        (Sampler(repetition_penalty=0.0), {}, "repetition_penalty is above 0"),
        (Sampler(presence_penalty=math.inf), {}, "presence_penalty is a finite"),
        (Sampler(temperature=math.nan), {}, "temperature"),
        (Sampler(logit_bias={1: math.inf}), {}, "logit_bias is a finite number"),
        (Sampler(logit_bias={9: 1.0}), {}, "token ids from 0 to 8; got 9"),
        (Sampler(), {"logprobs": -1}, "logprobs is 0 or more"),
    ],
)
def test_what_is_out_of_range_is_refused(sampler, options, said):
    with pytest.raises(ValueError, match=said):
        Chooser(sampler, vocab_size=9, **options)


def test_rows_at_once_refuse_what_needs_the_past():
    with pytest.raises(ValueError, match="Make a Chooser"):
        Sampler(presence_penalty=1.0).choose(torch.zeros(1, 4))

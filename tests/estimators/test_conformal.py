"""Conformal bands: exact ranks, coverage within the binomial's bounds, quantiles mended, drift followed."""

import numpy as np
import pytest
from scipy import stats

from hippodrome.estimators.conformal import (
    Adaptive,
    Conformal,
    Windows,
    pairs_of,
    rank,
    score_quantile,
)

QUANTILES = (0.1, 0.5, 0.9)


def windows(n: int, seed: int, *, horizon: int = 3, narrow: float = 1.0) -> Windows:
    """Truth around a known point, normal with a deviation of the lead, counted from 1, times a scale."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 20, size=(n, 1))
    size = scale[:, :, None] * np.arange(1, horizon + 1)[None, :, None]
    point = rng.normal(size=(n, horizon, 1)) * 100
    half = narrow * stats.norm.ppf(0.9) * size
    outputs = np.stack([point, point - half, point, point + half], -1)
    return Windows(outputs, point + size * rng.normal(size=point.shape), scale)


@pytest.mark.parametrize(
    ("n", "level", "place"),
    [(9, 0.9, 9), (9, 0.8, 8), (19, 0.95, 19), (4, 0.8, 4), (8, 0.9, 9), (99, 0.07, 7)],
)
def test_the_rank_is_the_one_of_the_theorem(n: int, level: float, place: int) -> None:
    assert rank(n, level) == place
    found = score_quantile(np.random.default_rng(n).permutation(n) + 1.0, level)
    assert found == (place if place <= n else np.inf)


def test_what_is_missing_does_not_count() -> None:
    scores = np.array([[3.0, np.nan], [1.0, 5.0], [2.0, np.nan], [4.0, 6.0]])
    assert list(score_quantile(scores, 0.5)) == [3.0, 6.0]  # the third of four, the second of two
    assert list(score_quantile(scores, np.array([0.2, 0.9]))) == [1.0, np.inf]


@pytest.mark.parametrize("method", ["absolute", "signed", "cqr"])
def test_exchangeable_windows_are_covered_as_promised(method) -> None:
    """Over repetitions the share of truths inside has the mean k / (n + 1) for k the rank (two-sided for the
    signed one), which bounds the mean of so many draws by the binomial's deviation."""
    n, repeats, level = 39, 120, 80
    inside = []
    for seed in range(repeats):
        known = Conformal.of(windows(n, seed, narrow=0.3), QUANTILES, method, "window")
        new = windows(40, 10_000 + seed, narrow=0.3)
        low, high = np.moveaxis(known.bands(new.outputs, new.scale, [level])[..., 0, :], -1, 0)
        inside.append(((new.truth >= low) & (new.truth <= high)).mean())
    expected = 32 / 40 if method != "signed" else 1 - 2 * 4 / 40
    # The variance of one repetition's coverage is that of a beta distribution plus a binomial's.
    spread = np.sqrt(expected * (1 - expected) * (1 / (n + 2) + 1 / 40) / repeats)
    assert abs(np.mean(inside) - expected) < 4 * spread


def test_quantiles_that_hold_stay_and_those_too_narrow_are_widened() -> None:
    new = windows(4000, 1)
    for narrow in (0.5, 1.0, 2.0):
        found = Conformal.of(windows(1000, 0, narrow=narrow), QUANTILES, "cqr", "window")
        bands = found.bands(windows(4000, 1, narrow=narrow).outputs, new.scale, [80])[..., 0, :]
        half = (bands[..., 1] - bands[..., 0]) / 2 / new.scale[:, None]
        exact = stats.norm.ppf(0.9) * np.arange(1, 4)
        np.testing.assert_allclose(half.mean((0, 2)), exact, rtol=0.12)


def test_a_level_without_a_pair_starts_from_the_widest_pair() -> None:
    found = Conformal.of(windows(400, 0), QUANTILES, "cqr", "window")
    assert found.base(95) == (1, 3, "band-80")
    new = windows(3000, 5)
    bands = found.bands(new.outputs, new.scale, [95])[..., 0, :]
    inside = (new.truth >= bands[..., 0]) & (new.truth <= bands[..., 1])
    assert abs(inside.mean() - 0.95) < 0.02


def test_pairs_of_quantiles() -> None:
    assert pairs_of((0.025, 0.1, 0.5, 0.9, 0.975)) == {80.0: (2, 4), 95.0: (1, 5)}
    assert pairs_of((0.1, 0.5)) == {}


def test_too_few_windows_and_levels_that_are_none_are_refused(tmp_path) -> None:
    found = Conformal.of(windows(18, 0), QUANTILES)
    with pytest.raises(ValueError, match=r"95 % needs 19 windows.*there are 18"):
        found.bands(windows(1, 1).outputs, np.ones((1, 1)), [95])
    with pytest.raises(ValueError, match="between 0 and 100"):
        found.bands(windows(1, 1).outputs, np.ones((1, 1)), [100])
    with pytest.raises(ValueError, match="need a pair"):
        Conformal.of(windows(18, 0), (0.5,), "cqr")
    found.save(tmp_path)
    again = Conformal.load(tmp_path)
    assert (again.method, again.scaling, again.quantiles) == ("cqr", "train", QUANTILES)
    new = windows(2, 3)
    both = [one.bands(new.outputs, new.scale, [80]) for one in (found, again)]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_the_adaptive_share_keeps_the_bound_of_the_proposition_whatever_comes() -> None:
    """|misses / T - target| <= (max(target, 1 - target) + rate) / (rate T), on a deviation that grows."""
    rng = np.random.default_rng(0)
    total, rate, target = 1500, 0.02, 0.2
    scores = np.abs(rng.normal(size=total)) * np.exp(np.arange(total) / 250)
    made = Adaptive(80, np.full((1, 1, 1), np.nan), rate=rate, memory=100)
    fixed = np.sort(scores[:100])[rank(100, 0.8) - 1]
    missed = 0
    for score in scores:
        wide = made.wide()
        missed += score > wide[0, 0]
        made.tell(np.array([[score]]), wide)
    assert abs(missed / total - target) <= (0.8 + rate) / (rate * total) + 1e-12
    # A band of the first hundred scores, kept as it was, would have missed most of the rest.
    assert (scores[100:] > fixed).mean() > 0.6


def test_adaptive_scores_are_those_of_the_last_truths() -> None:
    made = Adaptive(50, np.arange(3.0)[:, None, None], rate=0.0, memory=4)
    for score in (10.0, 11.0, np.nan, 12.0):
        made.tell(np.array([[score]]), made.wide())
    assert sorted(made.scores[:, 0, 0]) == [2.0, 10.0, 11.0, 12.0]
    assert made.wide()[0, 0] == 11.0  # the third of four: ceil(5 * 0.5)

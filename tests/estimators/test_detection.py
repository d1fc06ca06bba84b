"""Metrics of anomaly scores: against independent definitions, with ties, and what they refuse."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from hippodrome.estimators._detection import auprc, auroc, best_f1, detection_metrics


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(80) < 0.3
    scores = rng.normal(size=80) + labels
    return (np.round(scores) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_the_statistic_of_mann_and_whitney(ties: bool) -> None:
    scores, labels = drawn(0, ties)
    wanted = mannwhitneyu(scores[labels], scores[~labels]).statistic / (labels.sum() * (~labels).sum())
    assert auroc(scores, labels) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_precision_recall_and_f1_are_those_of_every_threshold(ties: bool) -> None:
    scores, labels = drawn(1, ties)
    area = recall = 0.0
    best = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = scores >= threshold
        hits = int((flagged & labels).sum())
        precision, now = hits / flagged.sum(), hits / labels.sum()
        area += (now - recall) * precision
        recall = now
        best = max(best, 2 * hits / (flagged.sum() + labels.sum()))
    assert auprc(scores, labels) == pytest.approx(area, rel=1e-12)
    f1, threshold = best_f1(scores, labels)
    assert f1 == pytest.approx(best, rel=1e-12)
    flagged = scores >= threshold
    assert f1 == pytest.approx(2 * (flagged & labels).sum() / (flagged.sum() + labels.sum()), rel=1e-12)


def test_perfect_and_constant_scores() -> None:
    labels = np.array([0, 0, 1, 0, 1])
    assert detection_metrics(labels + 0.0, labels) == {"auroc": 1, "auprc": 1, "best f1": 1, "share": 0.4}
    flat = detection_metrics(np.zeros(5), labels)
    assert (flat["auroc"], flat["auprc"]) == (0.5, pytest.approx(0.4))


def test_a_flag_in_a_stretch_finds_one_step_and_not_the_stretch() -> None:
    labels = np.array([0, 1, 1, 1, 1, 0, 0, 0])
    scores = np.array([0, 0, 5, 0, 0, 0, 0, 0])
    assert best_f1(scores, labels)[0] == pytest.approx(2 * 4 / (8 + 4))  # all flagged: 0.67; the one: 0.4
    assert auprc(scores, labels) == pytest.approx(0.25 * 1 + 0.75 * 0.5)


def test_steps_without_a_score_are_left_out() -> None:
    scores, labels = drawn(2, False)
    with_gaps = np.concatenate([scores, [np.nan, np.nan]])
    assert detection_metrics(with_gaps, np.append(labels, [True, False])) == detection_metrics(scores, labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0, 0, 0], "0 are labelled anomalous"), ([1, 1, 1], "3 are labelled"), ([0, 1], "one label for each")],
)
def test_refuses_labels_that_measure_nothing(labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        auroc(np.arange(3.0), np.array(labels))

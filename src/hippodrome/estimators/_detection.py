"""Metrics of anomaly scores against labels, each exact: ranks with ties shared, no threshold left to choose.

None of them is adjusted. Under "point adjustment" a whole labelled stretch counts as found when a single
step of it is flagged, so that scores drawn at random reach a high F1 on long stretches (Kim et al. 2022,
AAAI, "Towards a rigorous evaluation of time-series anomaly detection", arXiv 2109.05257).
"""

import numpy as np


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that an anomalous step scores higher than a usual one, ties counted as half.

    Args:
        scores: (n,), higher where more anomalous.
        labels: (n,), true where anomalous; steps of both kinds.
    """
    scores, labels = _checked(scores, labels)
    _, which, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[which]
    positive = int(labels.sum())
    rest = len(labels) - positive
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * rest))


def auprc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision: the precision at each threshold, weighted by the recall that it adds."""
    precision, recall = _curve(*_checked(scores, labels))
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def best_f1(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The highest F1 of single steps over all thresholds, and the threshold: flagged is what reaches it.

    The threshold is chosen with the labels in hand, so this bounds what a detector could do from above.
    """
    scores, labels = _checked(scores, labels)
    precision, recall = _curve(scores, labels)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = int(f1.argmax())
    return float(f1[best]), float(np.unique(scores)[::-1][best])


def detection_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """ "auroc", "auprc", "best f1" and the "share" of anomalous steps, which is the AUPRC of chance."""
    return {
        "auroc": auroc(scores, labels),
        "auprc": auprc(scores, labels),
        "best f1": best_f1(scores, labels)[0],
        "share": float(_checked(scores, labels)[1].mean()),
    }


def _curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each different score as threshold, the highest first."""
    levels, which = np.unique(scores, return_inverse=True)
    flagged = np.cumsum(np.bincount(which, minlength=len(levels))[::-1])
    found = np.cumsum(np.bincount(which, weights=labels, minlength=len(levels))[::-1])
    return found / flagged, found / labels.sum()


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the steps that have a score."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(
            f"there is one label for each score: got scores {scores.shape} and labels {labels.shape}. Give "
            f"two flat arrays of one length."
        )
    known = ~np.isnan(scores)
    scores, labels = scores[known], labels[known]
    if labels.all() or not labels.any():
        raise ValueError(
            f"an anomaly score is measured against steps of both kinds; of {len(labels)} steps with a score "
            f"{int(labels.sum())} are labelled anomalous. Give labels that hold both."
        )
    return scores, labels

"""Conformal intervals: bands around a forecast from the errors of forecasts whose truth is known.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018, arXiv 1604.04173, algorithm 2):
the band is as wide as the ceil((n + 1) * level)-th smallest of n scores, so that where the n windows and the
new one are exchangeable it holds the truth with a chance of ``level`` at least, whatever the model. The leads
of a horizon and the variates each have scores of their own. Windows of a series that overlap or drift are not
exchangeable, and then the chance is approximate: ``Adaptive`` follows a drift.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hippodrome.train.checkpoint import write_atomically

Method = Literal["cqr", "absolute", "signed"]
Scaling = Literal["train", "window"]
Number = int | float
METHODS = ("cqr", "absolute", "signed")
FILE = "intervals.safetensors"
MOST = 1000
"""Windows that are kept: enough to tell a band of 99.9 %."""


def rank(count: int | np.ndarray, level: Number | np.ndarray) -> np.ndarray:
    """Which of ``count`` scores in order bounds a share of ``level``: ceil((n + 1) * level), from 1 on."""
    # Rounded first: (n + 1) * level may be a whole number but for its last binary digit.
    return np.asarray(np.ceil(np.round((np.asarray(count) + 1) * level, 9)), dtype=np.int64)


def score_quantile(scores: np.ndarray, level: Number | np.ndarray) -> np.ndarray:
    """The score that a new one exceeds with a chance of 1 - level at most, for each place behind the first.

    Args:
        scores: (n, ...); NaN where nothing was seen.
        level: in (0, 1), one number or one for each place.

    Returns:
        (...) Infinite where n is too small for the level.
    """
    ordered = np.sort(scores, axis=0)  # NaN last
    count = np.asarray((~np.isnan(scores)).sum(0))
    place = rank(count, np.asarray(level))
    index = np.clip(place - 1, 0, len(scores) - 1)
    found = np.take_along_axis(ordered, np.broadcast_to(index, count.shape)[None], 0)[0]
    return np.where(place > count, np.inf, np.where(place < 1, -np.inf, found))


def pairs_of(quantiles: Sequence[float]) -> dict[float, tuple[int, int]]:
    """The levels in percent that pairs of quantiles bound, and the places of the pair in a forecast.

    Place 0 is the point, so that the first quantile is at 1.
    """
    places = {round(q, 9): i + 1 for i, q in enumerate(quantiles)}
    return {
        round(100 * (1 - 2 * q), 6): (i, places[round(1 - q, 9)])
        for q, i in sorted(places.items(), reverse=True)
        if q < 0.5 and round(1 - q, 9) in places
    }


class Windows(NamedTuple):
    """Forecasts whose truth is known: outputs (n, horizon, c, 1 + q), truth (n, horizon, c), NaN where it was
    not seen, and the scale (n, c) of each window."""

    outputs: np.ndarray
    truth: np.ndarray
    scale: np.ndarray


class Conformal:
    """Bands of any level around the forecasts of one model.

    Scores are in units of a scale. ``scaling="train"``: the deviation of each variate over the train data, so
    that a band is as wide for one window as for another. ``scaling="window"``: the deviation of the window's
    own look-back, under which series of very different sizes are pooled.

    Args:
        method: "cqr" widens or narrows the model's own quantiles by the quantile of max(low - y, y - high)
            (Romano, Patterson and Candes 2019, arXiv 1905.03222, equations 6 to 8); a level for which the
            model has no pair of quantiles starts from its widest pair. "absolute" puts the quantile of
            |y - point| on both sides of the point; "signed" takes both sides apart, with half of what may be
            missed on each.
        quantiles: the model's.
        scores: "error", (y - point) / scale, of (n, horizon, c), and for each pair of quantiles "band-80" and
            the like, max(low - y, y - high) / scale.
        scaling: which scale.
    """

    def __init__(
        self,
        method: Method,
        quantiles: Sequence[float],
        scores: Mapping[str, np.ndarray],
        scaling: Scaling = "train",
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"a conformal method is one of {', '.join(METHODS)}; got {method!r}")
        if method == "cqr" and not pairs_of(quantiles):
            raise ValueError(
                f"conformalized quantiles need a pair around the middle, such as 0.1 and 0.9; the model has "
                f"{list(quantiles)}. Train it with one, or take 'absolute' or 'signed'"
            )
        self.method, self.quantiles, self.scores = method, tuple(quantiles), dict(scores)
        self.scaling = scaling

    @classmethod
    def of(
        cls,
        windows: Windows,
        quantiles: Sequence[float],
        method: Method | None = None,
        scaling: Scaling = "train",
    ) -> "Conformal":
        """From windows; ``method`` None takes "cqr" where the model has a pair of quantiles, else "absolute".

        Of more than ``MOST`` windows, that many evenly spread ones are kept.
        """
        method = method or ("cqr" if pairs_of(quantiles) else "absolute")
        kept = np.unique(np.linspace(0, len(windows.truth) - 1, MOST).round().astype(int))
        if len(kept) < len(windows.truth):
            windows = Windows(*(part[kept] for part in windows))
        outputs, truth, scale = (np.asarray(part, dtype=np.float64) for part in windows)
        size = scale[:, None]
        scores = {"error": (truth - outputs[..., 0]) / size}
        for level, (low, high) in pairs_of(quantiles).items():
            scores[f"band-{level:g}"] = (
                np.maximum(outputs[..., low] - truth, truth - outputs[..., high]) / size
            )
        return cls(method, quantiles, scores, scaling)

    @property
    def windows(self) -> int:
        """How many windows the scores are of."""
        return len(self.scores["error"])

    def bands(self, outputs: np.ndarray, scale: np.ndarray, levels: Sequence[Number]) -> np.ndarray:
        """Low and high ends (b, h, c, levels, 2) of bands around forecasts.

        Args:
            outputs: (b, h, c, 1 + q), of the model; h may be a shorter horizon than that of the scores.
            scale: (b, c), of each window, in the sense of ``scaling``.
            levels: in percent.

        Raises:
            ValueError: a level outside (0, 100), or more than the windows can tell.
        """
        h = outputs.shape[1]
        size = scale[:, None]
        parts = [self._band(outputs, size, checked(level), h) for level in levels]
        return np.stack(parts, 3) if parts else np.zeros((*outputs.shape[:3], 0, 2))

    def _band(self, outputs: np.ndarray, size: np.ndarray, level: Number, h: int) -> np.ndarray:
        share = level / 100
        if self.method == "signed":
            share = 1 - (1 - share) / 2
            errors = self.scores["error"][:, :h]
            high = self._told(score_quantile(errors, share), level, share)
            low = -self._told(score_quantile(-errors, share), level, share)
            point = outputs[..., 0]
            return np.stack([point + low * size, point + high * size], -1)
        low_at, high_at, name = self.base(level)
        scores = self.scores[name][:, :h]
        wide = self._told(score_quantile(np.abs(scores) if not low_at else scores, share), level, share)
        return banded(outputs[..., low_at], outputs[..., high_at], wide * size)

    def base(self, level: Number) -> tuple[int, int, str]:
        """From where a band of a level is drawn: the places of its two ends in a forecast, and its scores."""
        if self.method != "cqr":
            return 0, 0, "error"
        pairs = pairs_of(self.quantiles)
        start = level if level in pairs else max(pairs)
        return *pairs[start], f"band-{start:g}"

    def _told(self, found: np.ndarray, level: Number, share: Number) -> np.ndarray:
        if np.isinf(found).any():
            least = math.ceil(round(share / (1 - share), 9))
            seen = int((~np.isnan(self.scores["error"])).sum(0).min())
            raise ValueError(
                f"a conformal band of {level:g} % needs {least} windows or more with a known truth for every "
                f"lead; there are {seen}. Give a longer series, a larger share of validation, a shorter "
                f"horizon or a lower level"
            )
        return found

    def save(self, folder: Path) -> None:
        """Write the scores into a run folder, in one piece."""
        from safetensors.numpy import save

        head = {"method": self.method, "scaling": self.scaling, "quantiles": json.dumps(self.quantiles)}
        tensors = {name: np.ascontiguousarray(v, dtype=np.float32) for name, v in self.scores.items()}
        content = save(tensors, metadata=head)
        write_atomically(folder / FILE, lambda file: file.write(content))

    @classmethod
    def load(cls, folder: Path) -> "Conformal | None":
        """What ``save`` left in a run folder, or None. Raises ValueError for a file that is none of ours."""
        from safetensors import SafetensorError, safe_open

        path = folder / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                head = file.metadata() or {}
                scores = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
            method, scaling = head["method"], head["scaling"]
            quantiles = json.loads(head["quantiles"])
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} cannot be read ({error}). Fit the forecaster again") from None
        return cls(method, quantiles, scores, scaling)  # type: ignore[arg-type]


class Adaptive:
    """Bands that follow a drift: adaptive conformal inference (Gibbs and Candes 2021, arXiv 2106.00170).

    The share that may be missed moves after each truth, alpha <- alpha + rate * (target - missed) (equation
    2), and the scores are those of the last ``memory`` truths (section 2.2 there renews the fitted scores
    too). So the share missed over T truths of one lead differs from the target by at most
    (max(target, 1 - target) + rate) / (rate * T), whatever the data do (proposition 4.1). A share at or below
    0 gives an infinite band, one at or above 1 an empty one; both are part of the method.

    Every lead and variate has a share and scores of its own. A truth that comes late, that of lead k comes k
    steps after the forecast, moves the share when it comes.

    Args:
        level: in percent.
        scores: what is known at the start (n, horizon, c): scores as of ``Conformal``, NaN where not seen.
        rate: how far one truth moves the share; 0 leaves it fixed.
        memory: scores that are kept of each lead.
    """

    def __init__(self, level: Number, scores: np.ndarray, rate: Number = 0.01, memory: int = 200) -> None:
        if not 0 <= rate <= 1 or memory < 1:
            raise ValueError(
                f"a rate is in [0, 1] and a memory 1 or more; got {rate:g} and {memory}. Correct them"
            )
        self.level, self.rate, self.memory = checked(level), rate, memory
        self.scores = np.full((memory, *scores.shape[1:]), np.nan)
        kept = scores[-memory:]
        self.scores[: len(kept)] = kept
        self.places = np.full(scores.shape[1:], len(kept) % memory)
        self.alpha = np.full(scores.shape[1:], 1 - self.level / 100)

    def wide(self) -> np.ndarray:
        """How far the band goes beyond its base now (horizon, c), in units of the scale."""
        inner = np.clip(self.alpha, 1e-12, 1 - 1e-12)
        found = score_quantile(self.scores, 1 - inner)
        return np.where(self.alpha <= 0, np.inf, np.where(self.alpha >= 1, -np.inf, found))

    def tell(self, scores: np.ndarray, wide: np.ndarray) -> None:
        """Take in truths: their scores (horizon, c), NaN where there is none, and each one's ``wide``."""
        seen = ~np.isnan(scores)
        missed = scores > wide
        step = self.rate * (1 - self.level / 100 - missed)
        self.alpha = np.where(seen, self.alpha + step, self.alpha)
        lead, variate = np.nonzero(seen)
        self.scores[self.places[seen], lead, variate] = scores[seen]
        self.places[seen] = (self.places[seen] + 1) % self.memory


def banded(low: np.ndarray, high: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Low and high ends (..., 2) of a band moved out by ``wide``; one that is narrowed past its middle is
    empty there, both ends at the middle."""
    middle = (low + high) / 2
    wide = np.maximum(wide, (low - high) / 2)
    with np.errstate(invalid="ignore"):
        return np.stack([np.minimum(low - wide, middle), np.maximum(high + wide, middle)], -1)


def checked(level: Number) -> float:
    """A level in percent. Raises ValueError outside (0, 100)."""
    if not 0 < level < 100:
        raise ValueError(f"a level is a share in percent between 0 and 100, such as 80; got {level:g}")
    return float(level)

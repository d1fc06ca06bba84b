"""The anomaly detector as an estimator: how far each step lies from what its surroundings lead to expect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from hippodrome import runs
from hippodrome.data.imputation import Grids, imputation_task, read_grids
from hippodrome.estimators._cells import foretold, rebuilt
from hippodrome.estimators._detection import detection_metrics
from hippodrome.estimators.base import Estimator
from hippodrome.train.checkpoint import write_atomically

if TYPE_CHECKING:
    import pandas

    from hippodrome.estimators._charts import Drawing

FILE = "detector.json"
"""What a run folder holds beside the model: the threshold, and what scores are measured in."""
PASSES = 4
"""Reconstruction hides every fourth block at a time, so that three stand between two hidden ones."""


class _Facts(NamedTuple):
    """What fitting learned beside the model: usual errors of each variate and step ahead, the threshold."""

    usual: list[list[float]]
    threshold: float


class AnomalyDetector(Estimator):
    """Scores each step of series by its error under a model of them, and flags the highest.

    With the method "forecast" a forecaster foretells each step from those before it, 1 to ``horizon`` steps
    ahead; with "reconstruction" an imputation model fills it in from both sides while it is hidden with its
    block. The error of a variate is divided by the model's own spread, half the width between its 10 and
    90 % quantiles, plus the median error of that variate over the frame learned from, which keeps a spread
    near zero from deciding alone. A step's score is the root mean square (or the largest) over the variates,
    averaged over ``smooth`` steps around it. Missing cells have no score, and neither have the first
    ``window`` steps of a series under "forecast".

    Args:
        method: "forecast" or "reconstruction".
        model: a mixer or a pattern; None takes s4d for forecasts and bi-s4d, which reads both ways, else.
        window: steps that are read: the look-back of a forecast, or the window of a reconstruction.
        horizon: steps ahead that are foretold ("forecast").
        block: steps that are hidden together ("reconstruction"); about as long as an anomaly.
        smooth: steps that a score is averaged over, around its own; 1 for none.
        across: "rms" or "max" over the variates of a step.
        contamination: share of the steps learned from whose score lies above the threshold.
        targets: columns to watch; None takes all that hold numbers (long form: ``y``).
        width: channels of the backbone.
        depth: its layers.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate.
        batch_size: windows a step.
        dropout: in the backbone.
        seed: of weights and order.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    def __init__(
        self,
        method: Literal["forecast", "reconstruction"] = "forecast",
        model: str | None = None,
        window: int = 96,
        horizon: int = 1,
        block: int = 8,
        smooth: int = 1,
        across: Literal["rms", "max"] = "rms",
        contamination: float = 0.01,
        targets: list[str] | None = None,
        width: int = 64,
        depth: int = 2,
        budget: str = "30s",
        lr: float = 2e-3,
        batch_size: int = 32,
        dropout: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.method, self.window, self.horizon, self.block = method, window, horizon, block
        self.model = model  # type: ignore[assignment]  # filled in when it trains
        self.smooth, self.across, self.contamination, self.targets = smooth, across, contamination, targets
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, df: "pandas.DataFrame") -> "AnomalyDetector":
        """Learn what is usual from a long or a wide frame; anomalies in it should be few."""
        self._check()
        grids = read_grids(df, targets=self.targets)
        given = self.model
        try:
            self.model = given or ("s4d" if self.method == "forecast" else "bi-s4d")
            if self.method == "forecast":
                self._train(self._forecast_task(df))
            else:
                self._train(self._fill_task(grids))
        finally:
            self.model = given
        errors = [self._errors(one.values) for one in grids.series]
        usual = self._usual(np.concatenate([error[0] for error in errors]))
        scores = np.concatenate([self._scores(*error, usual) for error in errors])
        threshold = float(np.nanquantile(scores, 1 - self.contamination))
        self.facts_ = _Facts(usual.tolist(), threshold)
        head = {name: getattr(self, name) for name in ("method", "window", "block", "smooth", "across")}
        text = json.dumps({**head, "contamination": self.contamination, **self.facts_._asdict()}, indent=2)
        write_atomically(self._fitted().folder / FILE, lambda file: file.write(text.encode()))
        self.frame_ = df
        return self

    @property
    def threshold_(self) -> float:
        """The score above which a step is flagged."""
        self._fitted()
        return self.facts_.threshold

    def score(self, df: "pandas.DataFrame | None" = None) -> "pandas.DataFrame":
        """``unique_id`` of a long frame, ``ds`` and the ``score`` of each step, in the order of the frame.

        About 1 is usual; NaN where there is none.
        """
        import pandas

        df = self._frame(df)
        grids = read_grids(df, targets=self.targets)
        if len(grids.names) != self._network.channels:
            raise ValueError(
                f"this detector learned {self._network.channels} variates, and the frame has "
                f"{len(grids.names)} ({', '.join(grids.names)}). Give the columns it learned from"
            )
        usual = np.array(self.facts_.usual)
        keys = np.empty(len(df), dtype=object)
        stamps: Any = np.empty(len(df), dtype=grids.series[0].stamps.dtype)
        scores = np.full(len(df), np.nan)
        for one in grids.series:
            keys[one.rows], stamps[one.rows] = one.name, one.stamps
            scores[one.rows] = self._scores(*self._errors(one.values), usual)
        self._check_scored(scores)
        long = {"unique_id": keys} if "unique_id" in df.columns else {}
        return pandas.DataFrame({**long, "ds": stamps, "score": scores})

    def predict(
        self, df: "pandas.DataFrame | None" = None, threshold: float | None = None
    ) -> "pandas.DataFrame":
        """The frame of ``score`` with a column ``anomaly``: whether the score is above the threshold.

        ``threshold`` None takes the one learned, the (1 - contamination) quantile of the scores then.
        """
        found = self.score(df)
        found["anomaly"] = found["score"] > (self.threshold_ if threshold is None else threshold)
        return found

    def chart(
        self, df: "pandas.DataFrame | None" = None, labels: Any = None, title: str = "Watched"
    ) -> "Drawing":
        """The first series above their scores, with what is flagged, and labels (one a row) if given."""
        from hippodrome.estimators._cell_charts import Watch, alarms

        df = self._frame(df)
        found, grids = self.predict(df), read_grids(df, targets=self.targets)
        drawn = [
            Watch(
                one.name if len(grids.series) > 1 else grids.names[0] if len(grids.names) == 1 else "values",
                one.stamps,
                one.values,
                found["score"].to_numpy()[one.rows],
                found["anomaly"].to_numpy()[one.rows],
                None if labels is None else np.asarray(labels, dtype=bool)[one.rows],
            )
            for one in grids.series
        ]
        return alarms(drawn, self.threshold_, title, grids.names)

    def measure(self, df: "pandas.DataFrame", labels: Any) -> dict[str, float]:
        """AUROC, AUPRC and the best F1 of single steps against labels (true where anomalous), unadjusted."""
        return detection_metrics(self.score(df)["score"].to_numpy(), np.asarray(labels))

    def _errors(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Absolute errors and the model's spreads of a series (t, c), one for each step ahead: (t, c, h)."""
        model = self._network
        if self.method == "forecast":
            found = foretold(model, values).transpose(0, 2, 1, 3)  # t c h 1+q
        else:
            found = rebuilt(model, values, self.window, self.block, PASSES)[:, :, None]
        return np.abs(found[..., 0] - values[..., None]), (found[..., -1] - found[..., 1]) / 2

    def _usual(self, errors: np.ndarray) -> np.ndarray:
        """The median error (c, h) of errors (t, c, h)."""
        self._check_scored(errors)
        size = np.array([[np.median(cell) if cell.size else 0.0 for cell in row] for row in _columns(errors)])
        # Where more than half never err (a switch, a counter at rest), a part of the variate's own scale.
        scale = self._network.scale.double().cpu().numpy()[:, None]
        return np.where(size > 0, size, 1e-3 * scale)

    def _scores(self, errors: np.ndarray, spreads: np.ndarray, usual: np.ndarray) -> np.ndarray:
        """The score (t,) of each step: NaN where none of its variates has one."""
        # Errors of later steps ahead are larger, so each is measured by the size usual for it.
        ratios = errors / (spreads + usual)
        there = ~np.isnan(ratios)
        seen = there.any(-1)
        known = np.where(there, ratios, 0.0).sum(-1) / np.maximum(there.sum(-1), 1)
        if self.across == "max":
            scores = known.max(1)
        else:
            scores = np.sqrt(np.square(known).sum(1) / np.maximum(seen.sum(1), 1))
        return _smoothed(np.where(seen.any(1), scores, np.nan), self.smooth)

    def _check_scored(self, errors: np.ndarray) -> None:
        if np.isnan(errors).all():
            raise ValueError(
                f"no step has a score: every series has {self.window} steps or fewer, or no value. Give "
                f"longer ones, or learn with a shorter window"
            )

    def _forecast_task(self, df: "pandas.DataFrame") -> Any:
        from hippodrome.data.tables import open_frame

        return open_frame(df, look_back=self.window, horizon=self.horizon, targets=self.targets)

    def _fill_task(self, grids: Grids) -> Any:
        return imputation_task(
            grids,
            length=self.window,
            split=None,
            hide="spans",
            mask_rate=1 / PASSES,
            eval_rate=None,
            span=self.block,
            seed=self.seed,
        )

    def _frame(self, df: "pandas.DataFrame | None") -> "pandas.DataFrame":
        self._fitted()
        df = getattr(self, "frame_", None) if df is None else df
        if df is None:
            raise ValueError("this detector was loaded and holds no series: give it the frame to score")
        return df

    def _check(self) -> None:
        if self.method not in ("forecast", "reconstruction") or self.across not in ("rms", "max"):
            raise ValueError(
                f"a detector works by 'forecast' or 'reconstruction' and takes 'rms' or 'max' across "
                f"variates; got {self.method!r} and {self.across!r}. Take one of these"
            )
        if not 0 < self.contamination < 0.5:
            raise ValueError(
                f"the contamination is a share of the steps inside (0, 0.5); got {self.contamination:g}. "
                f"Anomalies are the exception: ask for 0.01, say"
            )
        if min(self.window, self.horizon, self.block, self.smooth) < 1:
            raise ValueError(
                f"window, horizon, block and smooth count steps, 1 or more; got {self.window}, "
                f"{self.horizon}, {self.block} and {self.smooth}. Correct the smallest"
            )

    def _facts(self) -> dict[str, Any]:
        return {"quantiles": [0.1, 0.5, 0.9]}

    def _open(self, run: runs.Run) -> None:
        super()._open(run)
        self.horizon = run.spec.get("horizon", self.horizon)
        file = run.folder / FILE
        if not file.exists():
            return
        told = json.loads(file.read_text(encoding="utf-8"))
        self.facts_ = _Facts(*(told.pop(name) for name in _Facts._fields))
        self.set_params(**told)


def _columns(errors: np.ndarray) -> list[list[np.ndarray]]:
    """The errors that are known of each variate and step ahead."""
    return [[cells[~np.isnan(cells)] for cells in variate.T] for variate in errors.transpose(1, 0, 2)]


def _smoothed(scores: np.ndarray, width: int) -> np.ndarray:
    """The mean over ``width`` steps around each one, of those that have a score."""
    if width == 1:
        return scores
    seen = ~np.isnan(scores)
    window = np.ones(width)
    # "full" and then cut: "same" is as long as the window where that is longer than the series.
    cut = slice((width - 1) // 2, (width - 1) // 2 + len(scores))
    total = np.convolve(np.where(seen, scores, 0.0), window, "full")[cut]
    count = np.convolve(seen, window, "full")[cut]
    return np.where(seen, total / np.maximum(count, 1), np.nan)

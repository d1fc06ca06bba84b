"""The forecaster as an estimator: data frames in, data frames out."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from hippodrome import runs
from hippodrome.estimators import _intervals, _reading, _rolling
from hippodrome.estimators.base import Estimator
from hippodrome.estimators.conformal import Conformal
from hippodrome.models._forecasters import FORECASTING
from hippodrome.models._language_part import with_language
from hippodrome.train.settings import Budget

if TYPE_CHECKING:
    import pandas

    from hippodrome.data._panel import Panel
    from hippodrome.data.base import Task
    from hippodrome.estimators.streaming import Stream


class Forecaster(Estimator):
    """Forecasts series: one or many, under one model.

    A long frame has the columns ``unique_id, ds, y``, each id a series; any other frame is wide, a column of
    stamps and one for each variate. Steps are even (months, quarters, years and working days count as even)
    unless ``irregular`` says otherwise. Empty cells are missing values.

    Args:
        model: a mixer, a pattern, as for ``hippodrome race``, or the name of a recipe.
        horizon: steps ahead.
        look_back: steps of the past a forecast reads; None takes four horizons, 96 at least and 512 at most,
            and fewer where series are short.
        quantiles: levels of the forecast; pairs around the middle make the columns ``lo`` and ``hi``.
        targets: columns to forecast; None takes ``y`` of a long frame, all that have no other part of a wide
            one.
        time: the column of stamps; None looks for it by name.
        observed: columns of covariates that are seen in the past alone.
        known: columns of covariates that are known ahead too; ``predict`` is given their future.
        static: columns with one value a series, numbers or categories; those of ``static_df`` come to them.
        calendar: whether the calendar of the stamps is known ahead too: hour, day of week, month and year, or
            what else fits the step, each scaled to [-0.5, 0.5].
        irregular: whether steps between rows differ. Each is told to the model relative to the median step,
            as ``dt``, which needs mixers with continuous time, and as a covariate that is known ahead.
        gaps: "refuse" rows that are absent, or "fill" rows of missing values in.
        frequencies: "one" step for all series, or "mixed": each has its own, and one model counts in steps.
        scaler: "global" scales all series by the same numbers, "local" each by its own mean and deviation, so
            that large ones do not outweigh small ones; None takes "local" for more than one series.
        intervals: "quantiles" gives the model's own as bands; "conformal" gives bands from its errors on the
            validation part, of any level, which hold the truth as often as they say where windows are
            exchangeable (``conformal.Conformal``).
        language: of the recipe ``smetimes``: the run folder of a language model that reads for it, frozen.
        settings: others of the model around its backbone, by name: ``patch``, ``head`` or ``normalization``
            of ``models.forecasting``, ``segment``, ``experts`` or ``frozen`` of ``models.token_forecasting``.
        validation: share of the steps at the end of each series that the best weights are chosen by, a
            horizon at least; 0 learns from all and keeps the last weights.
        width: channels of the backbone; None takes the recipe's, or 64.
        depth: its layers; None takes the recipe's, or 2.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate; None takes the recipe's, or 0.001.
        batch_size: windows a step; None takes the recipe's, or 32.
        dropout: in the backbone; None takes the recipe's, or 0.1.
        seed: of weights and order.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    conformal_: Conformal | None

    def __init__(
        self,
        model: str = "s4d",
        horizon: int = 24,
        look_back: int | None = None,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        targets: Sequence[str] | None = None,
        time: str | None = None,
        observed: Sequence[str] = (),
        known: Sequence[str] = (),
        static: Sequence[str] = (),
        calendar: bool = False,
        irregular: bool = False,
        gaps: str = "refuse",
        frequencies: str = "one",
        scaler: str | None = None,
        intervals: Literal["quantiles", "conformal"] = "quantiles",
        language: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        validation: float = 0.1,
        width: int | None = None,
        depth: int | None = None,
        budget: str = "30s",
        lr: float | None = None,
        batch_size: int | None = None,
        dropout: float | None = None,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.horizon, self.look_back, self.quantiles = model, horizon, look_back, quantiles
        self.targets, self.time, self.observed, self.known = targets, time, observed, known
        self.static, self.calendar, self.irregular, self.gaps = static, calendar, irregular, gaps
        self.frequencies, self.scaler, self.validation = frequencies, scaler, validation
        self.intervals, self.language, self.settings = intervals, language, settings
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(
        self,
        df: "pandas.DataFrame",
        static_df: "pandas.DataFrame | None" = None,
        start_from: "Forecaster | str | Path | None" = None,
    ) -> "Forecaster":
        """Learn from a long frame (unique_id, ds, y), or a wide one (a column of stamps, one a variate).

        Args:
            df: the series, each in the order of time.
            static_df: ``unique_id`` and a column for each static covariate.
            start_from: a fitted forecaster, or a run folder, of the same model: its weights are begun with.

        Raises:
            ValueError: one line about what is wrong in the data, with its row and column, or in the choices.
        """
        from hippodrome.data._panel import read_panel

        _intervals.checked_words(self.intervals, self.validation)
        panel = read_panel(df, _reading.wanted(self), static_df)
        task = self._task(panel, self.look_back, self.horizon, _reading.scaler_of(self.scaler, panel))
        if self.irregular:
            _reading.check_timed(self.model, self._published(task)[1]["backbone"])
        begin = None if start_from is None else _rolling.carried(_source(start_from, self.device))
        self._train(task, begin)
        self._calibrate(task)
        self._keep(df, static_df, panel)
        return self

    def refit(
        self,
        df: "pandas.DataFrame",
        static_df: "pandas.DataFrame | None" = None,
        budget: str = "100steps",
        lr: float | None = None,
    ) -> "Forecaster":
        """Go on learning from the present weights, on a frame as the one of ``fit``: with more rows, or with
        other series.

        Scales and categories stay those of ``fit``. The model trains in a folder that goes away with this
        estimator; ``save`` keeps it. A folder that was named for ``fit`` keeps what ``fit`` left.

        Args:
            df: the series.
            static_df: as for ``fit``.
            budget: of training.
            lr: peak learning rate; None takes a tenth of the one that was learned with.
        """
        run = self._fitted()
        panel = self._panel(df, static_df)
        task = self._task(
            panel, run.spec["look_back"], run.spec["horizon"], run.details.get("scaler", "global")
        )
        rate = run.settings.lr / 10 if lr is None else lr
        settings = run.settings.model_copy(update={"budget": Budget.parse(budget), "lr": rate})
        temporary = tempfile.TemporaryDirectory(prefix="hippodrome-")
        place = Path(temporary.name) / "run"
        result = runs.train(run.spec, task, settings, place, start_from=run.model.state_dict())
        if result.status == "diverged":
            raise ValueError(f"the training diverged: {result.message}")
        self._open(runs.load(place, self.device))
        self.result_, self.temporary_ = result, temporary
        self._calibrate(task)
        self._keep(df, static_df, panel)
        return self

    def predict(
        self,
        df: "pandas.DataFrame | None" = None,
        h: int | None = None,
        X_df: "pandas.DataFrame | None" = None,
        level: Sequence[int | float] | None = None,
        static_df: "pandas.DataFrame | None" = None,
    ) -> "pandas.DataFrame":
        """The steps after the end of each series of ``df``, or of the frame learned from.

        A long frame gives a long frame: ``unique_id, ds`` and a column for the point and each quantile, named
        after the model. A wide frame gives a wide frame, its columns named after the variates. A series
        shorter than the look-back is filled up on its left.

        Args:
            df: series, of those learned from or others.
            h: steps; None takes the horizon. Fewer cut the forecast. More roll it out: the point forecast is
                read as if it had been seen (covariates of the past alone as missing), so that the bands of
                later steps are too narrow.
            X_df: stamps (and ``unique_id``) after each end with the columns known ahead; of irregular series
                the stamps to forecast at, which are otherwise usual steps.
            level: bands to give, by their share in percent: among those between the quantiles, or any where
                they are conformal; None gives those of the quantiles.
            static_df: as for ``fit``.

        Raises:
            ValueError: one line about what is wrong in the data, with its row and column, or what is missing.
        """
        from hippodrome.estimators import _frames

        _intervals.checked_levels(self._network, self.conformal_, level)
        panel = self._panel(df, static_df)
        times, outputs, columns = self._forecast(panel, h, X_df, level)
        names = self._fitted().details.get("variates") or [f"y{i + 1}" for i in range(outputs.shape[2])]
        return _frames.frame_of(panel, times, outputs, self.model, columns, names)

    def cross_validation(
        self,
        df: "pandas.DataFrame",
        h: int | None = None,
        n_windows: int = 5,
        step_size: int | None = None,
        refit: bool | str = False,
        level: Sequence[int | float] | None = None,
        static_df: "pandas.DataFrame | None" = None,
    ) -> "pandas.DataFrame":
        """Forecasts of the last windows of each series by what came before: see ``backtest``."""
        from hippodrome.estimators.backtest import Backtest

        return Backtest(self, df, h, n_windows, step_size, static_df).run(refit, level)

    def stream(
        self,
        df: "pandas.DataFrame | None" = None,
        series: str | int | None = None,
        *,
        static_df: "pandas.DataFrame | None" = None,
        renew: int | None = None,
        adaptive: Sequence[int | float] = (),
    ) -> "Stream":
        """Goes on with one series, an observation at a time: see ``streaming.Stream``."""
        from hippodrome.estimators.streaming import Stream

        return Stream(self, df, series, static_df, renew, adaptive)

    def _forecast(
        self, panel: "Panel", h: int | None, future: Any, level: Sequence[int | float] | None
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
        """The stamps (n, h) after each series, point, quantiles and bands (n, h, c, outputs) there, and what
        follows a name in the columns with its place among them."""
        from hippodrome.data._fitting import own_scales, scaled
        from hippodrome.estimators._frames import ahead_of

        model = self._network
        count = model.horizon if h is None else h
        if count < 1:
            raise ValueError(f"a forecast is of 1 step or more; got h={h}. Leave it out for the horizon")
        _reading.check_seen(model, panel)
        least = -(-count // model.horizon) * model.horizon
        ahead = ahead_of(panel, count, least, panel.reading, future)
        if self._fitted().details.get("scaler") != "local":
            outputs = _rolling.forecast(model, panel, ahead.known, count)
            return ahead.times, *_intervals.extended(model, self.conformal_, panel, outputs, level)
        location, scale = own_scales(panel)
        panel = scaled(panel, location, scale)
        outputs = _rolling.forecast(model, panel, ahead.known, count)
        outputs, columns = _intervals.extended(model, self.conformal_, panel, outputs, level)
        return ahead.times, outputs * scale[:, None, :, None] + location[:, None, :, None], columns

    def _calibrate(self, task: "Task") -> None:
        """Keep the scores of the validation part beside the weights, where bands are to be conformal."""
        if self.intervals == "conformal":
            folder = self._fitted().folder
            _intervals.calibrated(self._network, task).save(folder)
            # As the folder holds them, so that the forecaster that is loaded from it has the same bands.
            self.conformal_ = Conformal.load(folder)

    def _open(self, run: runs.Run) -> None:
        super()._open(run)
        self.conformal_ = Conformal.load(run.folder)

    def _panel(self, df: "pandas.DataFrame | None", static_df: "pandas.DataFrame | None") -> "Panel":
        """The series to go on from, read as those learned from were."""
        from hippodrome.data._panel import read_panel, table_of

        details = self._fitted().details
        if df is None:
            if not hasattr(self, "panel_"):
                raise ValueError(
                    "this forecaster was loaded and holds no series: give predict the frame to go on from"
                )
            return self.panel_
        table, _ = table_of(df)
        reading = _reading.again(details, table)
        static = getattr(self, "static_", None) if static_df is None else static_df
        return read_panel(table, reading, static)

    def _task(self, panel: "Panel", look_back: int | None, horizon: int, scaler: str) -> "Task":
        from hippodrome.data._fitting import fit_task

        task = fit_task(panel, look_back, horizon, self.validation, scaler)
        if self.intervals == "conformal":
            _intervals.check_scored(task)
        return task._replace(details={**task.details, "model": self.model, **_reading.kept(self)})

    def _keep(self, df: "pandas.DataFrame", static_df: "pandas.DataFrame | None", panel: "Panel") -> None:
        self.frame_, self.static_, self.panel_ = df, static_df, panel

    def _facts(self) -> dict[str, Any]:
        return {"quantiles": list(self.quantiles), **(self.settings or {})}

    def _read_by(self, spec: dict[str, Any]) -> tuple[dict[str, Any], Mapping[str, Tensor] | None]:
        if self.language is None:
            return spec, None
        run = runs.load(self.language)
        return with_language(spec, run.model, run.spec, run.tokenizer)


def _source(start_from: "Forecaster | str | Path", device: str) -> Any:
    """The model to begin with."""
    if isinstance(start_from, Forecaster):
        return start_from._network
    run = runs.load(Path(start_from), device)
    if run.spec["kind"] not in FORECASTING:
        raise ValueError(
            f"{start_from} holds a model for {run.spec['kind']}, and a forecaster begins with one that "
            f"forecasts. Name another folder"
        )
    return run.model

"""Backtests: forecasts of the last windows of each series by what came before them, and what they miss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hippodrome.data._fitting import before
from hippodrome.data._panel import read_panel, table_of
from hippodrome.data._series import last_seen
from hippodrome.data._table import stamps
from hippodrome.estimators import _intervals
from hippodrome.estimators._reading import wanted

if TYPE_CHECKING:
    import pandas

NAIVE = "SeasonalNaive"
"""The column of the seasonal naive forecast."""


class Backtest:
    """The last ``n_windows`` windows of each series, ``step_size`` rows apart, the last one at its end.

    A forecaster of the same arguments is trained on what lies before the first cutoff of each series, or
    before every cutoff anew, and sees of a window only what lies before its cutoff, and what is known ahead.
    The forecaster that was given stays as it was.

    Args:
        forecaster: a ``Forecaster``, fitted or not; its arguments are what counts.
        df: the series, as for ``fit``.
        h: steps of a window; None takes the horizon.
        n_windows: how many.
        step_size: rows from one cutoff to the next; None takes ``h``, so that windows do not overlap.
        static_df: as for ``fit``.

    Raises:
        ValueError: no such windows, or no series with enough rows before its first cutoff to learn from.
    """

    def __init__(
        self,
        forecaster: Any,
        df: "pandas.DataFrame",
        h: int | None = None,
        n_windows: int = 5,
        step_size: int | None = None,
        static_df: "pandas.DataFrame | None" = None,
    ) -> None:
        self.forecaster, self.df, self.static_df = forecaster, df, static_df
        self.h = forecaster.horizon if h is None else h
        step = self.h if step_size is None else step_size
        if not 1 <= self.h <= forecaster.horizon or n_windows < 1 or step < 1:
            raise ValueError(
                f"a backtest has 1 window or more, 1 row or more apart, of 1 to {forecaster.horizon} steps, "
                f"the horizon; got n_windows={n_windows}, step_size={step} and h={self.h}. Correct them"
            )
        self.panel = read_panel(df, wanted(forecaster), static_df)
        back = self.h + step * np.arange(n_windows - 1, -1, -1)
        self.ends = self.panel.counts[:, None] - back
        """The rows (n, windows) of each series before each cutoff; below 1 where it does not reach so far."""
        before = max(int(self.ends[:, 0].max()), 0)
        if before <= forecaster.horizon:
            many = "s" * (n_windows > 1)
            raise ValueError(
                f"{n_windows} window{many} of {self.h} steps, {step} rows apart, take {back[0]} rows at the "
                f"end of a series and leave {before} of the longest, of {self.panel.counts.max()}; a horizon "
                f"of {forecaster.horizon} is learned from {forecaster.horizon + 1} or more. Take fewer "
                f"windows, or a shorter horizon"
            )
        reading = self.panel.reading
        table, _ = table_of(df)
        self.when = np.arange(table.rows) if reading.time is None else stamps(table, reading.time)
        self.series = np.zeros(table.rows, np.int64)
        if self.panel.long:
            import pandas

            keys = pandas.Index([str(key) for key in table.columns["unique_id"]])
            self.series = pandas.Index(self.panel.ids).get_indexer(keys)

    def run(
        self,
        refit: bool | str = False,
        level: Sequence[int | float] | None = None,
    ) -> "pandas.DataFrame":
        """The windows as a long frame: ``unique_id, ds, cutoff, y`` and the columns of ``predict``.

        Of a wide frame each variate is a series. The trained forecaster is left in ``trained``.

        Args:
            refit: train on before every cutoff, from the weights of the one before, for 100 steps or for a
                budget such as "20s".
            level: bands, as for ``predict``.
        """
        import pandas

        made = type(self.forecaster)(**{**self.forecaster.get_params(), "folder": None})
        made.fit(self.past(0), self.static_df)
        _intervals.checked_levels(made._network, made.conformal_, level)
        # Read as the model learned to. Its first rows are what a frame cut at a cutoff would give, with rows
        # that are absent just before a cutoff, which such a frame would end in front of.
        whole = made._panel(self.df, self.static_df)
        if not np.array_equal(whole.offsets, self.panel.offsets):
            raise ValueError(
                f"all rows are read as {self.panel.usual.name} apart, and those before the first cutoff as "
                f"{whole.usual.name}. Take fewer windows, or put in the absent rows"
            )
        parts = []
        for window in range(self.ends.shape[1]):
            if refit and window:
                made.refit(self.past(window), self.static_df, *([] if refit is True else [refit]))
            past = before(whole, np.maximum(self.ends[:, window], 0))
            _, outputs, columns = made._forecast(past, self.h, self._ahead(window), level)
            found = {
                f"{made.model}{end}": outputs[..., place].swapaxes(1, 2).reshape(-1) for end, place in columns
            }
            parts.append(self.truth(window).assign(**found))
        self.trained = made
        return pandas.concat(parts, ignore_index=True)

    def truth(self, window: int) -> "pandas.DataFrame":
        """What came in a window: ``unique_id, ds, cutoff, y``, series by series and variate by variate."""
        import pandas

        panel = self.panel
        which = np.flatnonzero(self.ends[:, window] > 0)
        first = panel.offsets[which] + self.ends[which, window]
        rows = first[:, None] + np.arange(self.h)
        values = panel.values[rows].swapaxes(1, 2)  # n c h
        names = [name for i in which for name in self.names(int(i))]
        columns = {
            "unique_id": np.repeat(np.asarray(names), self.h),
            "ds": np.repeat(panel.times[rows][:, None], values.shape[1], 1).reshape(-1),
            "cutoff": np.repeat(panel.times[first - 1], values.shape[1] * self.h),
        }
        return pandas.DataFrame({**columns, "y": values.reshape(-1)})

    def names(self, series: int) -> list[Any]:
        """What the variates of a series are called in the frame."""
        targets, key = list(self.panel.reading.targets or ()), self.panel.keys[series]
        if not self.panel.long:
            return targets
        return [key] if len(targets) == 1 else [f"{key}/{target}" for target in targets]

    def past(self, window: int) -> "pandas.DataFrame":
        """The rows of the frame before the cutoffs of a window."""
        return self.df[self.when <= self._cutoffs(window)[self.series]]

    def seasonal_naive(self, season: int) -> np.ndarray:
        """The value one season before, in the order of the rows of ``run``.

        For a missing one stands the last one seen before it. A series shorter than a season repeats its last.
        """
        panel, parts = self.panel, []
        filled = [
            last_seen(panel.values[a:b]) for a, b in zip(panel.offsets, panel.offsets[1:], strict=False)
        ]
        for window in range(self.ends.shape[1]):
            for values, end in zip(filled, self.ends[:, window], strict=True):
                if end < 1:
                    continue
                lag = season if season <= end else 1
                parts.append(values[end - lag + np.arange(self.h) % lag].T.reshape(-1))
        return np.concatenate(parts)

    def _cutoffs(self, window: int) -> np.ndarray:
        """The last stamp (n,) before each cutoff; one before all where a series does not reach so far."""
        ends, starts = self.ends[:, window], self.panel.offsets[:-1]
        found = self.panel.times[starts + np.maximum(ends - 1, 0)]
        first: Any = np.timedelta64(1, "ns") if found.dtype.kind == "M" else 1
        return np.where(ends < 1, found - first, found)

    def _ahead(self, window: int) -> "pandas.DataFrame | None":
        """What is known ahead in a window."""
        reading = self.panel.reading
        if not reading.known and not reading.irregular:
            return None
        ends = self.panel.offsets[:-1] + self.ends[:, window]
        last = self.panel.times[np.clip(ends + self.h - 1, 0, len(self.panel.times) - 1)]
        inside = (self.when > self._cutoffs(window)[self.series]) & (self.when <= last[self.series])
        inside &= (self.ends[:, window] > 0)[self.series]
        kept = [name for name in ("unique_id", reading.time, *reading.known) if name in self.df.columns]
        return self.df.loc[inside, kept]


def metrics(
    frame: "pandas.DataFrame",
    models: Sequence[str],
    train: "pandas.DataFrame",
    season: int,
) -> "pandas.DataFrame":
    """What the forecasts of a backtest miss: ``unique_id, metric`` and a column for each model.

    By utilsforecast: mae, mse, rmse, smape (a share), mase on the mean error of the seasonal naive forecast
    over ``train``, and for models with bands their coverage and the mean pinball loss of all ends. All
    windows of a series count together; rows without a truth do not. The rows of ``unique_id`` "mean" are
    means over the series.

    Args:
        frame: of ``Backtest.run``, with further models' columns perhaps.
        models: their names.
        train: long, ``unique_id, ds, y``: what was learned from.
        season: rows of a season.
    """
    import pandas
    from utilsforecast import losses
    from utilsforecast.evaluation import evaluate

    seen = frame[frame["y"].notna()].drop(columns="cutoff")

    plain = ["unique_id", "ds", "y", *models]
    found = evaluate(seen[plain], metrics=[losses.mae, losses.mse, losses.rmse, losses.smape])
    scaled = losses.mase(seen[plain], list(models), seasonality=season, train_df=train)
    parts = [found, scaled.assign(metric="mase")]
    banded = {model: levels_of(frame, model) for model in models}
    for model, levels in banded.items():
        if not levels:
            continue
        for level in levels:
            share = losses.coverage(seen, [model], level=level)
            parts.append(share.assign(metric=f"coverage-{level:g}"))
        ends = [f"{model}-lo-{level:g}" for level in reversed(levels)]
        ends += [f"{model}-hi-{level:g}" for level in levels]
        shares = [(1 - level / 100) / 2 for level in reversed(levels)]
        quantiles = np.array([*shares, *(1 - share for share in reversed(shares))])
        pinball = losses.mqloss(seen, {model: ends}, quantiles=quantiles)
        parts.append(pinball.assign(metric="pinball"))
    table = pandas.concat(parts, ignore_index=True)
    order = {metric: place for place, metric in enumerate(dict.fromkeys(table["metric"]))}
    ids = {key: place for place, key in enumerate(dict.fromkeys(frame["unique_id"]))}
    table = table.groupby(["unique_id", "metric"])[list(models)].first().reset_index()
    place = [
        (ids[key], order[metric]) for key, metric in zip(table["unique_id"], table["metric"], strict=True)
    ]
    table = table.iloc[sorted(range(len(place)), key=place.__getitem__)]
    if len(ids) > 1:
        mean = table.groupby("metric", sort=False)[list(models)].mean().reset_index()
        table = pandas.concat([mean.assign(unique_id="mean"), table])[list(table.columns)]
    return table.reset_index(drop=True)


def levels_of(frame: "pandas.DataFrame", model: str) -> list[Any]:
    """The levels of a model's bands in a frame, in percent, the lowest first."""
    shares = [name.removeprefix(f"{model}-lo-") for name in frame.columns if name.startswith(f"{model}-lo-")]
    return sorted((float(s) if "." in s else int(s)) for s in shares)

"""Statistical baselines: seasonal naive, ARIMA, exponential smoothing and the theta method, series by series.

By statsforecast, which is an extra (``statistics``).
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hippodrome.config import suggest
from hippodrome.data._series import last_seen
from hippodrome.estimators import _frames
from hippodrome.estimators.backtest import Backtest
from hippodrome.estimators.forecaster import Forecaster

if TYPE_CHECKING:
    import pandas

    from hippodrome.data._panel import Panel

NAMES = {"naive": "SeasonalNaive", "arima": "AutoARIMA", "ets": "AutoETS", "theta": "AutoTheta"}
"""What each is called here, and in the columns of frames (and in statsforecast)."""

LEAST = 12
"""Rows of history below which no order is looked for."""


class Statistical:
    """Forecasts each series, and each variate, by a classical model of its own history alone.

    "naive" repeats the last season. "arima" is a seasonal ARIMA whose orders are searched for (Hyndman and
    Khandakar 2008, Journal of Statistical Software 27(3)), "ets" exponential smoothing whose form is chosen
    by the corrected Akaike criterion (Hyndman, Koehler, Snyder, Grose 2002), "theta" the best of four theta
    models (Fiorucci et al. 2016). There is nothing to fit ahead of time: orders and parameters are found anew
    from the rows before each forecast. A missing value is taken to be the last one before it; missing values
    at the start are left out. Frames and columns are those of ``Forecaster``.

    Args:
        model: "naive", "arima", "ets" or "theta".
        horizon: steps ahead.
        season: rows of a season; None takes it from the stamps (24 for hours, 7 for days, 12 for months). A
            history shorter than two seasons is taken to have none.
        history: rows before a forecast that are read; None reads all, which takes long where they are many.
        targets: as for ``Forecaster``, like what follows.
        time: the column of stamps.
        gaps: "refuse" or "fill".
        frequencies: "one" or "mixed".

    Raises:
        ValueError: no such model, or sizes below one.
    """

    def __init__(
        self,
        model: str = "ets",
        horizon: int = 24,
        season: int | None = None,
        history: int | None = None,
        targets: Sequence[str] | None = None,
        time: str | None = None,
        gaps: str = "refuse",
        frequencies: str = "one",
    ) -> None:
        if model not in NAMES:
            raise ValueError(f"there is no statistical model {model!r}{suggest(model, NAMES)}")
        if min(size for size in (horizon, season, history) if size is not None) < 1:
            raise ValueError(
                f"horizon, season and history are 1 row or more; got {horizon}, {season} and {history}. "
                f"Correct them"
            )
        self.model, self.horizon, self.season, self.history = model, horizon, season, history
        self.targets, self.time, self.gaps, self.frequencies = targets, time, gaps, frequencies

    def checked(self) -> "Statistical":
        """This, where statsforecast is installed.

        Raises:
            ValueError: it is not.
        """
        _made(self.model, 1)
        return self

    @property
    def name(self) -> str:
        """What its columns are named after."""
        return NAMES[self.model]

    def predict(
        self, df: "pandas.DataFrame", h: int | None = None, level: Sequence[int | float] | None = None
    ) -> "pandas.DataFrame":
        """The steps after the end of each series of ``df``, in the frame that ``Forecaster.predict`` gives.

        Args:
            df: long (``unique_id, ds, y``) or wide.
            h: steps; None takes the horizon.
            level: bands in percent, 80 say.

        Raises:
            ValueError: what is wrong in the data, or statsforecast is not installed.
        """
        from hippodrome.data._panel import read_panel
        from hippodrome.estimators._reading import wanted

        panel = read_panel(df, wanted(self._reader(self.horizon)))
        h, levels = self.horizon if h is None else h, sorted(level or ())
        ends = panel.counts
        found = np.stack([self._ahead(panel, i, int(ends[i]), h, levels) for i in range(len(ends))])
        outputs = found.transpose(0, 2, 1, 3)
        times = _frames.ahead_of(panel, h, h, panel.reading, None).times
        columns = [(end, i) for i, end in enumerate(_endings(levels))]
        return _frames.frame_of(panel, times, outputs, self.name, columns, list(panel.reading.targets or ()))

    def cross_validation(
        self,
        df: "pandas.DataFrame",
        h: int | None = None,
        n_windows: int = 5,
        step_size: int | None = None,
        level: Sequence[int | float] | None = None,
    ) -> "pandas.DataFrame":
        """Forecasts of the last windows of each series by what came before: ``unique_id, ds, cutoff, y`` and
        the columns of ``predict``, in the rows of ``Forecaster.cross_validation``.

        Raises:
            ValueError: as for ``Forecaster.cross_validation``, or statsforecast is not installed.
        """
        import pandas

        h = self.horizon if h is None else h
        backtest = Backtest(self._reader(h), df, h, n_windows, step_size)
        truth = [backtest.truth(window) for window in range(backtest.ends.shape[1])]
        columns = self.beside(backtest, level)
        return pandas.concat([pandas.concat(truth, ignore_index=True), columns], axis=1)

    def beside(self, backtest: Backtest, level: Sequence[int | float] | None = None) -> "pandas.DataFrame":
        """The columns of this model for the rows of a backtest."""
        import pandas

        levels = sorted(level or ())
        parts = []
        for window in range(backtest.ends.shape[1]):
            for i, end in enumerate(backtest.ends[:, window]):
                if end >= 1:
                    found = self._ahead(backtest.panel, i, int(end), backtest.h, levels)
                    parts.append(found.reshape(-1, found.shape[-1]))
        names = [f"{self.name}{end}" for end in _endings(levels)]
        return pandas.DataFrame(np.concatenate(parts), columns=names)

    def _reader(self, horizon: int) -> Forecaster:
        """What reads a frame as this does; it is never trained."""
        return Forecaster(
            horizon=horizon,
            targets=self.targets,
            time=self.time,
            gaps=self.gaps,
            frequencies=self.frequencies,
        )

    def _ahead(
        self, panel: "Panel", series: int, end: int, h: int, levels: Sequence[int | float]
    ) -> np.ndarray:
        """Point and bands (c, h, 1 + 2 levels) after the first ``end`` rows of a series."""
        low = int(panel.offsets[series])
        first = 0 if self.history is None else max(0, end - self.history)
        values = last_seen(panel.values[low + first : low + end])
        season = panel.rhythm.of(series).season if self.season is None else self.season
        return np.stack([ahead(self.model, column, h, season, levels) for column in values.T])


def ahead(
    model: str, values: np.ndarray, h: int, season: int = 1, levels: Sequence[int | float] = ()
) -> np.ndarray:
    """The ``h`` steps after one series (t,): point and bands (h, 1 + 2 levels), as ``_endings`` has them.

    Bands are NaN where a history is so short that nothing can be told of errors.

    Raises:
        ValueError: nothing was seen, or statsforecast is not installed.
    """
    values = values[np.flatnonzero(~np.isnan(values))[:1].sum() :].astype(np.float64)
    if not len(values) or np.isnan(values).all():
        raise ValueError("a series with no value has none to forecast from. Leave it out")
    season = season if len(values) >= 2 * season else 1
    found = np.full((h, 1 + 2 * len(levels)), np.nan)
    found[:, 0] = values[-1]
    if len(values) < LEAST or np.ptp(values) == 0:
        lag = min(season, len(values))
        found[:, 0] = values[len(values) - lag + np.arange(h) % lag]
        if np.ptp(values) == 0:
            found[:] = values[-1]
        return found
    made = _made(model, season)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Searches meet orders that do not converge, and pass them over.
        warnings.simplefilter("ignore")
        said: Any = made.forecast(y=values, h=h, level=list(levels) or None)
    found[:, 0] = said["mean"]
    for i, one in enumerate(levels):
        found[:, 1 + 2 * i], found[:, 2 + 2 * i] = said[f"lo-{one}"], said[f"hi-{one}"]
    return found


def baseline(
    name: str,
    df: "pandas.DataFrame",
    h: int,
    n_windows: int = 5,
    step_size: int | None = None,
    level: Sequence[int | float] | None = None,
    season: int | None = None,
    history: int | None = None,
) -> "pandas.DataFrame":
    """A backtest of one of ``NAMES``: the frame of ``Statistical.cross_validation``."""
    model = Statistical(name, h, season, history)
    return model.cross_validation(df, h, n_windows, step_size, level)


def _endings(levels: Sequence[int | float]) -> list[str]:
    """What follows the name in the columns: nothing, then -lo-80, -hi-80 and so on."""
    return ["", *(f"-{side}-{one:.6g}" for one in levels for side in ("lo", "hi"))]


def _made(model: str, season: int) -> Any:
    """The model of statsforecast."""
    try:
        from statsforecast import models
    except ImportError:
        raise ValueError(
            f"{NAMES[model]} is a model of statsforecast, which is not installed. Run `pip install "
            f"hippodrome[statistics]`, or leave it out"
        ) from None
    if model == "naive":
        return models.SeasonalNaive(season_length=season)
    if model == "arima":
        # The exact likelihood of every order tried takes minutes at a season of 24.
        return models.AutoARIMA(season_length=season, approximation=True)
    made = models.AutoETS if model == "ets" else models.AutoTheta
    return made(season_length=season)

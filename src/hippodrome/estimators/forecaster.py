"""The forecaster as an estimator: data frames in, data frames out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hippodrome.estimators.base import Estimator

if TYPE_CHECKING:
    import pandas


class Forecaster(Estimator):
    """Forecasts series of evenly spaced values.

    Args:
        model: a mixer or a pattern, as for ``hippodrome race``.
        horizon: steps ahead.
        look_back: steps of the past a forecast reads; None takes four horizons, 96 at least and 512 at most.
        quantiles: levels of the forecast; pairs around the middle make the columns ``lo`` and ``hi``.
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
        model: str = "s4d",
        horizon: int = 24,
        look_back: int | None = None,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        width: int = 64,
        depth: int = 2,
        budget: str = "30s",
        lr: float = 1e-3,
        batch_size: int = 32,
        dropout: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.horizon, self.look_back, self.quantiles = model, horizon, look_back, quantiles
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, df: "pandas.DataFrame") -> "Forecaster":
        """Learn from a long frame (unique_id, ds, y), or a wide one (a column of stamps, one a variate)."""
        from hippodrome.data.tables import open_frame

        back = self.look_back or min(512, max(96, 4 * self.horizon))
        self._train(open_frame(df, look_back=back, horizon=self.horizon))
        self.frame_ = df
        return self

    def predict(self, df: "pandas.DataFrame | None" = None) -> "pandas.DataFrame":
        """The ``horizon`` steps after the end of each series of ``df``, or of the frame learned from.

        A long frame gives a long frame: ``unique_id, ds`` and a column for the point and each quantile, named
        after the model. A wide frame gives a wide frame, its columns named after the variates. A series
        shorter than the look-back is filled up on its left.
        """
        import pandas

        from hippodrome.data.tables import read_series

        run = self._fitted()
        df = getattr(self, "frame_", None) if df is None else df
        if df is None:
            raise ValueError(
                "this forecaster was loaded and holds no series: give predict the frame to go on from"
            )
        long = "unique_id" in df.columns
        parts = []
        for key, (stamps, values) in read_series(df).items():
            self._check(values, key)
            ahead = _ahead(stamps, self._network.horizon)
            found = self._forecast(values)
            if long:
                columns = {self.model + end: found[:, 0, j] for j, end in enumerate(self._endings())}
                parts.append(pandas.DataFrame({"unique_id": key, "ds": ahead, **columns}))
            else:
                names = run.details.get("variates") or [f"y{i + 1}" for i in range(found.shape[1])]
                columns = {
                    f"{name}{end}": found[:, i, j]
                    for i, name in enumerate(names)
                    for j, end in enumerate(self._endings())
                }
                parts.append(pandas.DataFrame({"ds": ahead, **columns}))
        return pandas.concat(parts, ignore_index=True)

    def _forecast(self, values: np.ndarray) -> np.ndarray:
        """Point and quantiles (horizon, c, 1 + q) after the end of ``values`` (t, c)."""
        model = self._network
        past = np.full((model.look_back, values.shape[1]), np.nan, dtype=np.float32)
        kept = values[-model.look_back :]
        past[len(past) - len(kept) :] = kept
        with torch.no_grad():
            outputs, _ = model(torch.from_numpy(past)[None].to(next(model.parameters()).device))
        return outputs[0].cpu().numpy()

    def _check(self, values: np.ndarray, key: str) -> None:
        channels = self._network.channels
        if values.shape[1] != channels:
            raise ValueError(
                f"this forecaster learned {channels} variates a step, and series {key!r} has "
                f"{values.shape[1]}. Give the columns it learned from"
            )
        if np.isnan(values).all():
            raise ValueError(f"series {key!r} has no value to forecast from")

    def _endings(self) -> list[str]:
        """What follows a name in the columns of point and quantiles: -lo-80, -median, -hi-80."""
        endings = [""]
        for level in self._network.quantiles:
            share = f"{abs(200 * level - 100):.6g}"
            endings.append("-median" if level == 0.5 else f"-lo-{share}" if level < 0.5 else f"-hi-{share}")
        return endings

    def _facts(self) -> dict[str, Any]:
        return {"quantiles": list(self.quantiles)}


def _ahead(stamps: np.ndarray, horizon: int) -> Any:
    """The stamps that follow: of the same frequency for dates, of the same distance for numbers."""
    import pandas

    if not np.issubdtype(stamps.dtype, np.datetime64):
        step = stamps[-1] - stamps[-2] if len(stamps) > 1 else 1
        return stamps[-1] + step * np.arange(1, horizon + 1)
    index = pandas.DatetimeIndex(stamps)
    frequency: Any = pandas.infer_freq(index) if len(index) > 2 else None
    if frequency is None:
        frequency = index[-1] - index[-2] if len(index) > 1 else pandas.Timedelta(days=1)
    return pandas.date_range(index[-1], periods=horizon + 1, freq=frequency)[1:]

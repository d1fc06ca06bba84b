"""Our forecasters as a forecaster of sktime. Importing this file imports sktime."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sktime.datatypes import get_cutoff, update_data
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from hippodrome.estimators.adapters._levels import at_levels
from hippodrome.estimators.forecaster import Forecaster

_ROWS = 64
"""Series that are forecast in one pass."""


class HippodromeForecaster(BaseForecaster):
    """Any of our forecasting models, trained by ours, in the interface of sktime.

    All series of a panel or hierarchy, all variates of each, are learned by one model. All steps up to the
    farthest of ``fh`` are forecast at once, so ``fh`` is given to ``fit``. X are covariates known ahead; rows
    of it that are missing count as its mean. Steps are taken as evenly spaced. Missing values are NaN.

    Quantiles at other levels than were learned are interpolated, and beyond the outermost ones extrapolated,
    linearly over the quantiles of the normal distribution: exact where the forecast is normal.

    ``update`` with ``update_params=True`` learns anew from all that was seen, otherwise the forecast goes on
    from the newest values.

    Args:
        model: a mixer, a pattern or a recipe, as for ``hippodrome.Forecaster``.
        look_back: steps of the past a forecast reads; None takes four horizons, 96 at least and 512 at most,
            and no more than half of the longest series.
        quantiles: levels that are learned, two at least for intervals.
        width: channels of the backbone; None takes 64, or the recipe's.
        depth: its layers; None takes 2, or the recipe's.
        budget: of training, such as "30s", "500steps"; only one in steps gives the same model twice.
        lr: peak learning rate.
        batch_size: windows a step.
        dropout: in the backbone; None takes 0.1, or the recipe's.
        random_state: seed of weights and order.
        device: cpu, cuda, mps or auto.

    Examples:
        >>> from sktime.datasets import load_airline
        >>> from hippodrome.estimators.adapters.sktime import HippodromeForecaster
        >>> forecaster = HippodromeForecaster(width=8, depth=1, budget="2steps", device="cpu")
        >>> bands = forecaster.fit(load_airline(), fh=[1, 2, 3]).predict_interval(coverage=0.8)
        >>> bands.shape
        (3, 2)
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["hippodrome"],
        "maintainers": ["hippodrome"],
        "python_dependencies": ["hippodrome"],
        "y_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": False,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": True,
        "capability:non_contiguous_X": True,
        "capability:unequal_length": True,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": True,
    }

    def __init__(
        self,
        model: str = "s4d",
        look_back: int | None = None,
        quantiles: tuple[float, ...] = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975),
        width: int | None = None,
        depth: int | None = None,
        budget: str = "30s",
        lr: float = 1e-3,
        batch_size: int = 32,
        dropout: float | None = None,
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.model, self.look_back, self.quantiles = model, look_back, quantiles
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.random_state, self.device = (
            batch_size,
            dropout,
            random_state,
            device,
        )
        super().__init__()

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon) -> "HippodromeForecaster":
        self._cur_y, self._cur_X = y, X
        steps = fh.to_relative(self.cutoff).to_pandas()
        self.horizon_ = int(steps.max())
        self._learn()
        return self

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> "HippodromeForecaster":
        self._cur_y = update_data(self._cur_y, y)
        if self._cur_X is not None and X is not None:
            self._cur_X = update_data(self._cur_X, X)
        if update_params:
            self._learn()
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        outputs, ahead = self._forecasts(fh, X)
        return pd.DataFrame(np.concatenate(outputs)[..., 0], ahead, self._cur_y.columns)

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        outputs, ahead = self._forecasts(fh, X)
        found = at_levels(self.network_.quantiles, np.concatenate(outputs)[..., 1:], alpha)
        names = [f"{name}" if name is None else name for name in self._get_varnames()]
        columns = pd.MultiIndex.from_product([names, alpha])
        return pd.DataFrame(found.reshape(len(found), -1), ahead, columns)

    def _learn(self) -> None:
        parts = []
        for number, (_, one, beside) in enumerate(_series(self._cur_y, self._cur_X)):
            columns = {f"y{i}": one.iloc[:, i].to_numpy(np.float64) for i in range(one.shape[1])}
            if beside is not None:
                columns |= {f"x{i}": beside.iloc[:, i].to_numpy(np.float64) for i in range(beside.shape[1])}
            # Steps are counted: the index is not read for gaps.
            parts.append(pd.DataFrame({"unique_id": number, "ds": np.arange(len(one)), **columns}))
        frame = pd.concat(parts)
        learner = Forecaster(
            model=self.model,
            horizon=self.horizon_,
            look_back=self.look_back,
            quantiles=tuple(self.quantiles),
            targets=[name for name in frame.columns if name.startswith("y")],
            known=[name for name in frame.columns if name.startswith("x")],
            scaler="global",
            width=self.width,
            depth=self.depth,
            budget=self.budget,
            lr=self.lr,
            batch_size=self.batch_size,
            dropout=self.dropout,
            seed=self.random_state,
            device=self.device,
        )
        self.network_ = learner.fit(frame)._network

    def _forecasts(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> tuple[list[np.ndarray], pd.Index]:
        """Point and quantiles (steps, c, 1 + q) of each series at ``fh``, and the index of all of them."""
        model = self.network_
        device = next(model.parameters()).device
        wanted = np.asarray(fh.to_indexer(self.cutoff))
        pasts, aheads, index = [], [], []
        for key, one, beside in _series(self._cur_y, self._cur_X):
            cutoff = get_cutoff(one, return_index=True)
            every = ForecastingHorizon(np.arange(1, self.horizon_ + 1)).to_absolute_index(cutoff)
            past = one.to_numpy(dtype=np.float32)
            if beside is not None:
                past = np.concatenate([past, beside.to_numpy(dtype=np.float32)], 1)
                given = self._ahead(X, key, list(beside.columns)).reindex(every)
                aheads.append(torch.from_numpy(given.to_numpy(dtype=np.float32)))
            window = np.full((model.look_back, past.shape[1]), np.nan, dtype=np.float32)
            kept = past[-model.look_back :]
            window[len(window) - len(kept) :] = kept
            pasts.append(torch.from_numpy(window))
            steps = every[wanted]
            index.append(steps if key is None else _indexed(key, steps))
        found = []
        with torch.no_grad():
            for first in range(0, len(pasts), _ROWS):
                part = slice(first, first + _ROWS)
                known = torch.stack(aheads[part]).to(device) if aheads else None
                told = {} if known is None else {"known": known}
                outputs, _ = model(torch.stack(pasts[part]).to(device), **told)
                found += list(outputs.double().cpu().numpy()[:, wanted])
        together = index[0] if len(index) == 1 else index[0].append(index[1:])
        return found, together.set_names(self._cur_y.index.names)

    def _ahead(self, X: pd.DataFrame | None, key: tuple | None, columns: list[Any]) -> pd.DataFrame:
        if X is None:
            raise ValueError(
                f"this forecaster learned with the covariates {columns}: give predict X "
                f"at the steps to forecast"
            )
        return (X if key is None else _of(X, key))[columns]

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Settings of the instances that sktime's own tests make."""
        small = {"width": 4, "depth": 1, "look_back": 6, "budget": "1steps", "batch_size": 4, "device": "cpu"}
        return [
            {**small, "quantiles": (0.1, 0.5, 0.9)},
            {**small, "model": "min_gru", "dropout": 0.0, "look_back": None},
        ]


def _series(
    y: pd.DataFrame, X: pd.DataFrame | None
) -> Iterator[tuple[tuple | None, pd.DataFrame, pd.DataFrame | None]]:
    """The key of each series, its values and its covariates at the same steps."""
    if not isinstance(y.index, pd.MultiIndex):
        yield None, y, None if X is None else X.reindex(y.index)
        return
    for key in y.index.droplevel(-1).unique():
        name = key if isinstance(key, tuple) else (key,)
        one = _of(y, name)
        yield name, one, None if X is None else _of(X, name).reindex(one.index)


def _of(frame: pd.DataFrame, key: tuple) -> pd.DataFrame:
    """The rows of one series, by their steps."""
    rows: Any = frame.loc[key]
    return rows


def _indexed(key: tuple, steps: pd.Index) -> pd.MultiIndex:
    """The index of one series of many."""
    return pd.MultiIndex.from_tuples([(*key, step) for step in steps])

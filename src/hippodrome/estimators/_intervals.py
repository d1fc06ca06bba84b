"""Where the bands of a forecaster come from: its own quantiles, or scores of its validation part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hippodrome.data._panel import Panel
from hippodrome.data.base import Task
from hippodrome.estimators import _frames
from hippodrome.estimators.conformal import (
    MOST,
    Conformal,
    Method,
    Number,
    Scaling,
    Windows,
    checked,
    pairs_of,
)
from hippodrome.models._forecasters import AnyForecaster
from hippodrome.models._window import EPS
from hippodrome.shapes import SeriesBatch

LEVELS = (80.0, 95.0)
"""Of conformal bands, in percent, where none are asked for and the model has no pair of quantiles."""


def checked_words(intervals: str, validation: Number) -> None:
    """Raise before training where the bands asked for cannot be had."""
    if intervals not in ("quantiles", "conformal"):
        raise ValueError(f"intervals are 'quantiles' or 'conformal'; got {intervals!r}. Take one")
    if intervals == "conformal" and not validation:
        raise ValueError(
            "conformal bands are made of errors on the validation part; got validation=0. Give it a share"
        )


def check_scored(task: Task) -> None:
    """Raise before training where no window is left to score bands by."""
    windows = task.details["windows"]["valid"]
    if not windows:
        horizon = task.facts["horizon"]
        raise ValueError(
            f"conformal bands are made of errors on the validation part, the last {horizon} rows or more of "
            f"series of {2 * horizon + 1} rows or more; there is no such series. Give longer ones, take a "
            f"shorter horizon, or intervals='quantiles'"
        )


def checked_levels(model: AnyForecaster, conformal: Conformal | None, level: Sequence[Number] | None) -> None:
    """Raise before the frame is read where a level cannot be had."""
    if conformal is None:
        _frames.endings(model.quantiles, level)
    else:
        for one in level or ():
            checked(one)


def extended(
    model: AnyForecaster,
    conformal: Conformal | None,
    panel: Panel,
    outputs: np.ndarray,
    level: Sequence[Number] | None,
) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Forecasts with all bands that are asked for, and what follows a name in the columns with its place.

    Args:
        model: trained.
        conformal: its scores, or None for its own quantiles.
        panel: the series gone on from, as the model reads them.
        outputs: (n, h, c, 1 + q) of the model.
        level: in percent; None gives the levels of the quantiles.

    Raises:
        ValueError: a level that there is no band of, or conformal bands beyond the horizon.
    """
    if conformal is None:
        return outputs, _frames.endings(model.quantiles, level)
    if outputs.shape[1] > model.horizon:
        raise ValueError(
            f"conformal bands reach as far as the horizon, {model.horizon} steps; got h={outputs.shape[1]}. "
            f"Ask for fewer steps, or fit with a longer horizon"
        )
    levels = sorted(pairs_of(model.quantiles)) or list(LEVELS) if level is None else sorted(map(float, level))
    ends = panel.offsets[1:]
    index = ends[:, None] + np.arange(-model.look_back, 0)
    there = index >= panel.offsets[:-1][:, None]
    past = np.where(there[..., None], panel.values[np.where(there, index, 0)], np.nan)
    bands = conformal.bands(outputs, scales(model, past, conformal.scaling), levels)
    first = outputs.shape[-1]
    lows = [(f"-lo-{one:g}", first + 2 * i) for i, one in enumerate(levels)]
    highs = [(f"-hi-{one:g}", first + 2 * i + 1) for i, one in enumerate(levels)]
    middle = [("-median", 1 + model.quantiles.index(0.5))] if 0.5 in model.quantiles else []
    columns = [("", 0), *reversed(lows), *middle, *highs]
    return np.concatenate([outputs, bands.reshape(*bands.shape[:3], -1)], -1), columns


def scales(model: AnyForecaster, past: np.ndarray, scaling: Scaling) -> np.ndarray:
    """The scale (b, c) of windows whose variates are ``past`` (b, t, c); see ``Conformal``.

    That of a window is never below a share of 0.3 % of the train data's, as in the model's normalization.
    """
    size = model.scale.cpu().numpy().astype(np.float64)
    if scaling == "train":
        return np.broadcast_to(size, (len(past), len(size)))
    seen = ~np.isnan(past)
    count = np.maximum(seen.sum(1), 1)
    known = np.where(seen, past, 0.0).astype(np.float64)
    mean = known.sum(1) / count
    variance = np.square(np.where(seen, known - mean[:, None], 0.0)).sum(1) / count
    return np.where(seen.any(1), np.sqrt(variance + EPS * np.square(size)), size)


def ends(
    model: AnyForecaster,
    conformal: Conformal | None,
    outputs: np.ndarray,
    scale: np.ndarray,
    levels: Sequence[Number],
) -> np.ndarray:
    """Low and high ends (b, h, c, levels, 2) around forecasts (b, h, c, 1 + q): conformal bands, or where
    ``conformal`` is None the model's own quantiles.

    Raises:
        ValueError: a level for which the model has no pair of quantiles, or as ``Conformal.bands``.
    """
    if conformal is not None:
        return conformal.bands(outputs, scale, levels)
    pairs = pairs_of(model.quantiles)
    for level in levels:
        if checked(level) not in pairs:
            had = ", ".join(f"{one:g} %" for one in sorted(pairs)) or "none"
            tails = (1 - level / 100) / 2
            raise ValueError(
                f"the model's quantiles make bands of {had}; got {level:g} %. Train with quantiles "
                f"{tails:.4g} and {1 - tails:.4g}, or with intervals='conformal'"
            )
    places = [list(pairs[float(level)]) for level in levels]
    return outputs[..., np.asarray(places, dtype=int).reshape(-1, 2)]


def calibrated(
    model: AnyForecaster, task: Task, method: Method | None = None, batch_size: int = 64
) -> Conformal:
    """Scores of the windows of a task's validation part, ``MOST`` evenly spread ones at most.

    Of one series on the train data's scale, of several each window on its own, so that all are pooled. The
    weights were chosen by the same windows, the only use that training made of them, so that the bands come
    out a little narrow where that choice had much to choose from.
    """
    scaling: Scaling = "window" if task.details.get("series", 1) > 1 else "train"
    dataset: Any = task.valid
    kept = np.unique(np.linspace(0, len(dataset) - 1, MOST).round().astype(int))
    device = model.location.device
    found: list[Windows] = []
    for low in range(0, len(kept), batch_size):
        batch = task.collate([dataset[int(i)] for i in kept[low : low + batch_size]])
        batch = SeriesBatch(*(None if part is None else part.to(device) for part in batch))  # type: ignore[arg-type]
        with torch.no_grad():
            outputs, _ = model(batch.past, dt=batch.dt, known=batch.known, static=batch.static)
        past = batch.past[..., : model.channels].cpu().numpy()
        parts = outputs.float().cpu().numpy(), batch.future.cpu().numpy()
        found.append(Windows(*parts, scales(model, past, scaling)))
    return Conformal.of(
        Windows(*map(np.concatenate, zip(*found, strict=True))), model.quantiles, method, scaling
    )

"""Cells of series through a model of windows: filled in from overlapping windows, foretold from the past."""

from typing import Any

import numpy as np
import torch

ROWS = 64
"""Windows that are computed at once."""


def filled(model: Any, values: np.ndarray, window: int, dt: np.ndarray | None = None) -> np.ndarray:
    """Point and quantiles (t, c, 1 + q) of every cell of a series (t, c) with holes, by an imputation model.

    ``dt`` are the time steps (t,), where they differ. Windows overlap by half. A cell is the mean of those
    that hold it, weighted by how far it stands from the ends of the window, or from its start alone where the
    model reads one way.
    """
    t = len(values)
    starts = [*range(0, t - window, max(1, window // 2)), max(0, t - window)]
    places = np.arange(1, window + 1, dtype=np.float64)
    if not model.backbone.causal:
        places = np.minimum(places, places[::-1])
    outputs = 1 + len(model.quantiles)
    total, weight = np.zeros((t, values.shape[1], outputs)), np.zeros(t)
    device = next(model.parameters()).device
    for first in range(0, len(starts), ROWS):
        chosen = starts[first : first + ROWS]
        batch = _windows(values, chosen, window, np.nan).to(device)
        steps = None if dt is None else _windows(dt, chosen, window, 1.0).to(device)
        with torch.no_grad():
            found = model(batch, dt=steps)[0].double().cpu().numpy()
        for row, start in zip(found, chosen, strict=True):
            count = min(window, t - start)
            total[start : start + count] += places[:count, None, None] * row[:count]
            weight[start : start + count] += places[:count]
    return total / weight[:, None, None]


def _windows(rows: np.ndarray, starts: list[int], window: int, fill: float) -> torch.Tensor:
    """Pieces of rows (t, ...) as (b, window, ...) in float32, ``fill`` behind the end."""
    pieces = np.full((len(starts), window, *rows.shape[1:]), fill, dtype=np.float32)
    for piece, start in zip(pieces, starts, strict=True):
        part = rows[start : start + window]
        piece[: len(part)] = part
    return torch.from_numpy(pieces)


def rebuilt(model: Any, values: np.ndarray, window: int, block: int, passes: int) -> np.ndarray:
    """Point and quantiles (t, c, 1 + q) of every cell when it was hidden with all of its block of steps.

    Each pass hides every block whose number leaves the same rest by ``passes``.
    """
    outputs = np.empty((*values.shape, 1 + len(model.quantiles)))
    number = np.arange(len(values)) // block % passes
    for one in range(passes):
        hidden = number == one
        if hidden.any():
            outputs[hidden] = filled(model, np.where(hidden[:, None], np.nan, values), window)[hidden]
    return outputs


def foretold(model: Any, values: np.ndarray) -> np.ndarray:
    """Point and quantiles (t, horizon, c, 1 + q) of each step, by forecasts made 1 to ``horizon`` before it.

    NaN where the past is shorter than the look-back.
    """
    back, horizon = model.look_back, model.horizon
    t, c = values.shape
    found = np.full((t, horizon, c, 1 + len(model.quantiles)), np.nan)
    device = next(model.parameters()).device
    series = torch.from_numpy(values.astype(np.float32))
    origins = np.arange(back, t)
    for first in range(0, len(origins), ROWS):
        chosen = origins[first : first + ROWS]
        past = torch.stack([series[origin - back : origin] for origin in chosen.tolist()])
        with torch.no_grad():
            ahead = model(past.to(device))[0].double().cpu().numpy()
        for h in range(horizon):
            inside = chosen + h < t
            found[chosen[inside] + h, h] = ahead[inside, h]
    return found

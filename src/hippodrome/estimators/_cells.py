"""Cells of series through a model of windows: filled in from overlapping windows, foretold from the past."""

from typing import Any

import numpy as np
import torch

ROWS = 64
"""Windows that are computed at once."""


def filled(model: Any, values: np.ndarray, window: int) -> np.ndarray:
    """Point and quantiles (t, c, 1 + q) of every cell of a series (t, c) with holes, by an imputation model.

    Windows overlap by half. A cell is the mean of those that hold it, weighted by how far it stands from the
    ends of the window, or from its start alone where the model reads one way.
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
        batch = np.full((len(chosen), window, values.shape[1]), np.nan, dtype=np.float32)
        for row, start in zip(batch, chosen, strict=True):
            piece = values[start : start + window]
            row[: len(piece)] = piece
        with torch.no_grad():
            found = model(torch.from_numpy(batch).to(device))[0].double().cpu().numpy()
        for row, start in zip(found, chosen, strict=True):
            count = min(window, t - start)
            total[start : start + count] += places[:count, None, None] * row[:count]
            weight[start : start + count] += places[:count]
    return total / weight[:, None, None]


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


def endings(quantiles: tuple[float, ...]) -> list[str]:
    """What follows a name in the columns of quantiles: -lo-80, -median, -hi-80."""
    ends = []
    for level in quantiles:
        share = f"{abs(200 * level - 100):.6g}"
        ends.append("-median" if level == 0.5 else f"-lo-{share}" if level < 0.5 else f"-hi-{share}")
    return ends

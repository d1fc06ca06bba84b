"""Forecasts of many series in batches, rolled out where more steps are asked for than were learned."""

import numpy as np
import torch
from torch import Tensor

from hippodrome.data._panel import Panel
from hippodrome.models._forecasters import AnyForecaster

ROWS = 512
"""Rows of values, variates times series, that one forward pass reads."""

STATISTICS = (
    *("location", "scale", "covariates.location", "covariates.scale"),
    *("covariates.static_location", "covariates.static_scale"),
)
"""Buffers that hold facts of the train data."""


def forecast(model: AnyForecaster, panel: Panel, known: np.ndarray | None, count: int) -> np.ndarray:
    """Point and quantiles (n, count, c, 1 + q) after the end of each series.

    What the model asks for beyond its horizon it is told by its own point forecast: covariates that are seen
    in the past alone are missing there.

    Args:
        model: trained, in evaluation mode.
        panel: the series, on the scale that the model learned.
        known: (n, blocks * horizon, k) covariates known ahead, blocks as many as ``count`` needs.
        count: steps.
    """
    device = model.location.device
    columns = [panel.values, *(part for part in (panel.observed, panel.known) if part is not None)]
    rows = np.concatenate(columns, 1, dtype=np.float32) if len(columns) > 1 else panel.values
    size = max(1, ROWS // model.channels)
    found = []
    for low in range(0, len(panel.ids), size):
        part = slice(low, low + size)
        index, there = _window(panel, part, model.look_back)
        past = torch.from_numpy(np.where(there[..., None], rows[index], np.nan).astype(np.float32))
        dt = None
        if panel.dt is not None:
            dt = torch.from_numpy(np.where(there, panel.dt[index], 1.0).astype(np.float32)).to(device)
        told = None if known is None else torch.from_numpy(known[part].astype(np.float32)).to(device)
        static = None
        if panel.static is not None:
            static = torch.from_numpy(panel.static[part].astype(np.float32)).to(device)
        with torch.no_grad():
            outputs = _rolled(model, past.to(device), told, static, dt, count)
        found.append(outputs.float().cpu().numpy())
    return np.concatenate(found).astype(np.float64)


def carried(model: AnyForecaster) -> dict[str, Tensor]:
    """The weights that another forecaster of the same shape begins with: all but facts of the train data."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name not in STATISTICS
    }


def _window(panel: Panel, part: slice, look_back: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows (n, look_back) before the end of some series, and which of them there are."""
    index = panel.offsets[1:][part, None] + np.arange(-look_back, 0)
    there = index >= panel.offsets[:-1][part, None]
    return np.where(there, index, 0), there


def _rolled(
    model: AnyForecaster,
    past: Tensor,
    known: Tensor | None,
    static: Tensor | None,
    dt: Tensor | None,
    count: int,
) -> Tensor:
    """The forecast of ``count`` steps, a horizon at a time."""
    parts = []
    for low in range(0, count, model.horizon):
        told = None if known is None else known[:, low : low + model.horizon]
        outputs, _ = model(past, dt=dt, known=told, static=static)
        parts.append(outputs)
        if low + model.horizon >= count:
            break
        seen = outputs[..., 0]
        unseen = seen.new_full((*seen.shape[:2], past.shape[2] - seen.shape[2]), float("nan"))
        if told is not None:
            unseen[..., unseen.shape[2] - told.shape[2] :] = told
        past = torch.cat([past, torch.cat([seen, unseen], 2)], 1)[:, -model.look_back :]
        if dt is not None:
            assert told is not None  # the last covariate of irregular series is the log of their steps
            dt = torch.cat([dt, told[..., -1].exp()], 1)[:, -model.look_back :]
    return torch.cat(parts, 1)[:, :count]

"""Memory over the look-back: how much a forecast depends on each step of the past that it reads."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hippodrome.analyze.charts import Chart, Trace, traces

QUARTER = 4
"""The first and the last quarter of the horizon are looked at apart."""


class LookBack(NamedTuple):
    """Influence of the past on the forecasts of some windows, the step before the forecast last.

    ``whole``, ``near`` and ``far``: root mean square derivative of a forecast value with respect to a past
    step, on scaled values, over the horizon and over its first and last quarter. ``reach``: the fewest last
    steps that hold ``share`` of the sum of ``whole``.
    """

    whole: tuple[float, ...]
    near: tuple[float, ...]
    far: tuple[float, ...]
    reach: int
    share: float
    windows: int


def look_back_memory(
    model: Any, batch: Any, *, share: float = 0.95, probes: int = 4, seed: int = 0
) -> LookBack:
    """Measure by derivatives, at the windows of a batch, which steps of the past the point forecast reads.

    For step k it is the root of the mean over windows and forecast values y of sum_c (dy / dx_kc)^2, both on
    the scale of the train data, c over the variates. The sum over all y is sketched with random signs
    (Hutchinson 1990, as in ``memory``). A model that takes the level off each window has a share of it in
    every derivative: a forecast that repeats the level depends on all steps alike.

    Args:
        model: a forecaster: ``channels``, ``scale``, and called as ``models.forecasting`` is.
        batch: a ``SeriesBatch``; what is missing in it has no influence.
        share: the part of the total influence that ``reach`` must hold, between 0 and 1.
        probes: draws of signs.
        seed: of the signs.

    Raises:
        ValueError: a share outside (0, 1), or no probe.
    """
    if not 0 < share < 1 or probes < 1:
        raise ValueError(
            f"the share to hold lies between 0 and 1 and there is one probe at least; got share={share:g} "
            f"and probes={probes}. Take 0.95 and 4."
        )
    g = torch.Generator().manual_seed(seed)
    c, scale = model.channels, model.scale
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            past = batch.past.detach().clone().requires_grad_()
            point = model(past, dt=batch.dt, known=batch.known, static=batch.static)[0][..., 0] / scale
            h = point.shape[1]
            quarter = max(1, h // QUARTER)
            places = (slice(0, h), slice(0, quarter), slice(h - quarter, h))
            found = [torch.zeros(past.shape[1], dtype=torch.float64) for _ in places]
            for _ in range(probes):
                signs = (torch.randint(0, 2, point.shape, generator=g) * 2 - 1).to(point)
                for total, place in zip(found, places, strict=True):
                    told = (point[:, place] * signs[:, place]).sum()
                    (slope,) = torch.autograd.grad(told, past, retain_graph=True)
                    squares = (slope[..., :c] * scale).double().square().sum(-1).mean(0).cpu()
                    total += squares / (point[0, place].numel() * probes)
    finally:
        model.train(training)
    whole, near, far = (total.sqrt() for total in found)
    a, b, c = (tuple(line.tolist()) for line in (whole, near, far))
    return LookBack(a, b, c, _reach(whole, share), share, len(past))


def look_back_chart(found: LookBack, one: LookBack | None = None, number: int = 0) -> Chart:
    """Influence over the look-back, and that of one window, number ``number``, beside it."""
    steps = np.arange(-len(found.whole), 0)
    lines = [
        Trace("whole horizon", steps, np.array(found.whole)),
        Trace("first quarter", steps, np.array(found.near)),
        Trace("last quarter", steps, np.array(found.far)),
    ]
    if one is not None:
        lines.append(Trace(f"window {number}", steps, np.array(one.whole), ink=True))
    kept = round(100 * found.share)
    # The last steps tend to weigh many times what others do; where some weigh nothing there is no logarithm.
    log = all(min(line.y) > 0 for line in lines)
    return traces(
        "look-back",
        f"Memory over the look-back: the last {found.reach} of {len(steps)} steps hold {kept} %",
        lines,
        x="steps before the forecast",
        y="influence on the forecast",
        log_y=log,
        y_limits=None if log else (0.0, 1.08 * max(max(line.y) for line in lines) or 1.0),
        marks={f"{kept} %": -found.reach} if found.reach < len(steps) else None,
        note="Root mean square derivative of a forecast value with respect to a past step, on scaled "
        f"values, over {found.windows} windows. The last {found.reach} steps hold {kept} % of it.",
        width=7.2,
    )


def _reach(influence: Tensor, share: float) -> int:
    total = influence.sum()
    if not bool(total > 0):
        return 0
    held = influence.flip(0).cumsum(0) / total
    return int((held < share * (1 - 1e-12)).sum()) + 1

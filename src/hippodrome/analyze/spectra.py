"""What a forecaster has learned of an autoregression: its weights of the past and the spectrum they imply."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.analyze.charts import Chart, Trace, traces
from hippodrome.models.base import Model

POINTS = 512
"""Frequencies, evenly over 0 to pi."""


class Learned(NamedTuple):
    """A forecaster beside the process that made its data; decibels at ``frequencies``."""

    weights: Float[Tensor, "lags"]
    """The mean slope of the next value's forecast by each value of the past, newest first."""
    coefficients: Float[Tensor, "p"]
    omega: Float[Tensor, "f"]
    learned: Float[Tensor, "f"]
    true: Float[Tensor, "f"]
    distance: float
    """Root of the mean square of the difference of both, over frequencies, in decibels."""
    weight_error: float
    """|weights - coefficients| / |coefficients|, the coefficients followed by zeros."""


def density(
    coefficients: Float[Tensor, "p"], omega: Float[Tensor, "f"], noise: float = 1.0
) -> Float[Tensor, "f"]:
    """noise^2 / |1 - sum_j phi_j e^{-i omega j}|^2, j = 1 .. p: the spectral density of an autoregression.

    Over frequencies from -pi to pi its mean is the variance of the process (Box, Jenkins 1970, "Time series
    analysis", section 3.2).
    """
    lags = torch.arange(1, len(coefficients) + 1, dtype=torch.float64)
    turns = torch.exp(-1j * omega.double()[:, None] * lags)
    gain = 1 - turns @ coefficients.to(turns.dtype)
    return noise**2 / gain.abs().square().clamp_min(1e-300)


def one_step_weights(model: Model, past: Float[Tensor, "b t 1"]) -> Float[Tensor, "t"]:
    """The mean slope over windows of the first forecast value by each past value, newest first.

    Of a linear forecaster these are its weights; of any other one, the mean of what they are at each window.
    """
    training = model.training
    model.eval()
    try:
        probe = past.detach().clone().requires_grad_()
        forecast, _ = model(probe)
        (slopes,) = torch.autograd.grad(forecast[:, 0, 0, 0].sum(), probe)
    finally:
        model.train(training)
    return slopes[..., 0].double().mean(0).flip(0).cpu()


def learned(
    model: Model, past: Float[Tensor, "b t 1"], coefficients: Sequence[float], noise: float = 1.0
) -> Learned:
    """Hold a forecaster of one variate against the autoregression that its data come from.

    Args:
        model: the forecaster.
        past: windows at which it is looked at, (b, t, 1).
        coefficients: phi_1 .. phi_p of the process.
        noise: deviation of its noise; where it is 0, that of both spectra counts as 1.
    """
    weights = one_step_weights(model, past)
    truth = torch.tensor(coefficients, dtype=torch.float64)
    omega = (torch.arange(POINTS, dtype=torch.float64) + 0.5) * torch.pi / POINTS
    mine, theirs = (10 * density(phi, omega, noise or 1.0).log10() for phi in (weights, truth))
    longest = max(len(weights), len(truth))
    both = torch.zeros(2, longest, dtype=torch.float64)
    both[0, : len(weights)], both[1, : len(truth)] = weights, truth
    error = float((both[0] - both[1]).norm() / truth.norm())
    distance = math.sqrt(float((mine - theirs).square().mean()))
    return Learned(weights, truth, omega, mine, theirs, distance, error)


def drawings(name: str, found: Mapping[str, Learned]) -> list[Chart]:
    """The spectra of several forecasters beside the true one, and their weights of the past."""
    first = next(iter(found.values()))
    lines = [Trace("the process", first.omega.numpy(), first.true.numpy(), ink=True)]
    lines += [Trace(f"{who}", one.omega.numpy(), one.learned.numpy()) for who, one in found.items()]
    told = "; ".join(f"{who} {one.distance:.2g} dB" for who, one in found.items())
    spectrum = traces(
        f"{name}-spectrum",
        "Spectral density, learned and true",
        lines,
        x="radians a step",
        y="dB",
        note=f"Of the autoregression whose weights are the slopes of the forecast of one step. Root mean "
        f"square difference: {told}.",
    )
    p = max(len(first.coefficients) + 6, 16)
    lags = torch.arange(1, p + 1).numpy()
    truth = torch.zeros(p, dtype=torch.float64)
    truth[: len(first.coefficients)] = first.coefficients
    bars = [Trace("the process", lags, truth.numpy(), ink=True)]
    bars += [Trace(who, lags[: len(one.weights)], one.weights[:p].numpy()) for who, one in found.items()]
    weights = traces(
        f"{name}-weights",
        "Weight of each past value in the next",
        bars,
        x="steps ago",
        y="slope",
        markers=True,
        note="Mean slope of the forecast of one step over windows of the test part.",
    )
    return [spectrum, weights]

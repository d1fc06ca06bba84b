"""What regressions share: statistics that fit what they scale, errors on scaled values as metrics, and
rolling out."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.models.base import Model, exact_sum
from hippodrome.shapes import Mean


def check_widths(
    channels: int,
    targets: int,
    location: list[float] | None,
    scale: list[float] | None,
    target_location: list[float] | None,
    target_scale: list[float] | None,
) -> None:
    """Raises ValueError for statistics that do not hold a number for each channel or target."""
    for name, values, width in (
        ("location", location, channels),
        ("scale", scale, channels),
        ("target_location", target_location, targets),
        ("target_scale", target_scale, targets),
    ):
        if values is not None and len(values) != width:
            raise ValueError(
                f"{name} holds one number for each of {width}; got {len(values)}. Take the train "
                f"statistics of the same values."
            )


def positive(values: list[float]) -> Float[Tensor, "c"]:
    """The numbers, with one in the place of a zero."""
    spread = torch.tensor(values)
    return torch.where(spread > 0, spread, 1.0)


def rolled(
    model: Model,
    inputs: Float[Tensor, "b t c"],
    steps: int,
    following: Callable[[Float[Tensor, "b o"]], Float[Tensor, "b c"]],
    dt: Float[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b steps o"]:
    """The ``steps`` predictions that follow inputs, each made from the one before it in constant memory:
    ``following`` makes an input of a prediction. Steps to come are as long as the last one.

    Raises:
        ValueError: no step.
    """
    if steps < 1:
        raise ValueError(f"a roll-out has one step or more; got {steps}. Ask for one.")
    latest, state = model.last(inputs, model.init_state(inputs.shape[0], inputs.shape[1] + steps), dt=dt)
    found = [latest]
    for _ in range(steps - 1):
        latest, state = model.step(following(latest), state, dt_t=None if dt is None else dt[:, -1])
        found.append(latest)
    return torch.stack(found, 1)


def mean_square(error: Float[Tensor, "*any"], seen: Bool[Tensor, "*any"]) -> Float[Tensor, ""]:
    """The mean of the squares of errors that are zero where nothing was seen."""
    return error.square().sum() / seen.sum().clamp(min=1)


def measured(error: Float[Tensor, "*any"], seen: Bool[Tensor, "*any"]) -> Mapping[str, Mean]:
    """ "mse" and "mae" of such errors; "r2", one minus the first."""
    count = int(seen.sum())
    squared = exact_sum(error.square())
    return {
        "mse": Mean(squared, count),
        "mae": Mean(exact_sum(error.abs()), count),
        "r2": Mean(count - squared, count),
    }

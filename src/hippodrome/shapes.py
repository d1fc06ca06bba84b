"""The legend of letters, the tensor types made of them, and the batches that move between the floors.

Letters, everywhere in the code and the docs: ``b`` batch, ``t`` time, ``d`` channels (the model width),
``n`` size of a channel's state, ``h`` heads, ``p`` channels of one head, ``k`` and ``v`` key and value
size, ``g`` groups of heads that share a parameter, ``w`` taps of a short convolution, ``l`` length of a
kernel, ``c`` variates of a series, ``q`` quantiles, ``i`` and ``j`` rows and columns of a frame, ``2`` a
trailing axis holding real and imaginary part.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

Sequence = Float[Tensor, "b t d"]
Token = Float[Tensor, "b d"]
Resets = Bool[Tensor, "b t"]
TimeSteps = Float[Tensor, "b t"]


class TokenBatch(NamedTuple):
    """Discrete tokens and what to predict at each: the batch of a language model.

    ``targets`` holds -100 where nothing is to be predicted. ``resets[b, t]`` marks the first token of a
    document packed behind another one; None when every row is one piece.
    """

    tokens: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    resets: Bool[Tensor, "b t"] | None = None


class LabelledBatch(NamedTuple):
    """Sequences with one class each: the batch of a classifier.

    ``inputs`` are raw values (b, t, c), or token ids (b, t). Rows shorter than t are padded on the right;
    ``lengths`` counts the valid steps. ``dt`` are the time steps, positive, where they are not all one. Where
    a class is of two sequences, rows 2i and 2i + 1 are pair i: half as many labels as rows.
    """

    inputs: Float[Tensor, "b t c"] | Int[Tensor, "b t"]
    lengths: Int[Tensor, "b"]
    labels: Int[Tensor, "b"]
    dt: Float[Tensor, "b t"] | None = None


class PairBatch(NamedTuple):
    """Token sequences and what is to be found for each of them: the batch of an encoder.

    Each row has a query and k candidates, of which the first belongs to it and the others do not. Rows
    shorter than t are padded on the right; ``query_lengths`` and ``lengths`` count the valid steps.
    """

    queries: Int[Tensor, "b t"]
    query_lengths: Int[Tensor, "b"]
    candidates: Int[Tensor, "b k s"]
    lengths: Int[Tensor, "b k"]


class RegressionBatch(NamedTuple):
    """Values in and values out at each step: the batch of a regression.

    ``targets`` are NaN where nothing is asked. ``dt`` are the time steps, positive, where they are not all
    one.
    """

    inputs: Float[Tensor, "b t c"]
    targets: Float[Tensor, "b t o"]
    dt: Float[Tensor, "b t"] | None = None


class SeriesBatch(NamedTuple):
    """A window of the past and the future to forecast from it, in raw units: the batch of a forecaster.

    ``past`` holds the c variates to forecast, then the p covariates that are seen in the past alone, then the
    k that are known ahead too, whose future is ``known``. ``static`` says what does not change of a series.
    ``dt`` are the steps in front of each row of the past, positive, 1 where they are the usual ones; None
    where all are. NaN stands for what is missing.
    """

    past: Float[Tensor, "b t v"]
    future: Float[Tensor, "b horizon c"]
    known: Float[Tensor, "b horizon k"] | None = None
    static: Float[Tensor, "b s"] | None = None
    dt: Float[Tensor, "b t"] | None = None


class PretextBatch(NamedTuple):
    """Sequences with something taken out of them and what to put there: the batch of self-pretraining.

    ``inputs`` are raw values, with one more channel that is 1 where a step is hidden if any may be (b, t,
    c + 1), NaN in the others there; or token ids, the hidden ones replaced by an id of their own. ``targets``
    are the values or ids asked for: NaN, or -100, where nothing is asked. Rows shorter than t are padded on
    the right; ``lengths`` counts the valid steps. ``dt`` are the time steps, where they are not all one.
    """

    inputs: Float[Tensor, "b t c"] | Int[Tensor, "b t"]
    targets: Float[Tensor, "b t o"] | Int[Tensor, "b t"]
    lengths: Int[Tensor, "b"]
    dt: Float[Tensor, "b t"] | None = None


class VideoBatch(NamedTuple):
    """Frames of i rows and j columns with c values a pixel, each from 0 to 1: the batch of a video model."""

    frames: Float[Tensor, "b t i j c"]


Batch = PretextBatch | TokenBatch | LabelledBatch | PairBatch | RegressionBatch | SeriesBatch | VideoBatch


class Mean(NamedTuple):
    """A mean kept as its total and its count, so that batches of unequal size add up exactly."""

    total: Float[Tensor, ""]
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs of a mean

    @property
    def value(self) -> float:
        """The mean itself."""
        return float(self.total) / self.count


def check_step_sizes(dt: Tensor, where: str) -> None:
    """Raise where a step size is not a positive, finite number.

    It reads values, so it is for readers, the command line and debugging, never inside what is compiled.

    Raises:
        ValueError: some dt <= 0, infinite or NaN; the message starts with ``where`` and names the first.
    """
    bad = ~(dt.isfinite() & (dt > 0))
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{where}: step sizes dt must be positive and finite; got {dt[place].item():g} at index {place}, "
            f"and {int(bad.sum())} of {dt.numel()} are not. Merge tokens of equal times and order the rest."
        )


__all__ = [
    "Batch",
    "LabelledBatch",
    "Mean",
    "PairBatch",
    "PretextBatch",
    "RegressionBatch",
    "Resets",
    "Sequence",
    "SeriesBatch",
    "TimeSteps",
    "Token",
    "TokenBatch",
    "VideoBatch",
    "check_step_sizes",
]

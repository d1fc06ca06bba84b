"""The sequence regression as an estimator: arrays in, arrays out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hippodrome import runs
from hippodrome.data._aligned import aligned_task, with_deltas
from hippodrome.estimators.base import Estimator

ROWS = 64
"""Sequences that are predicted at a time."""


class _Form(NamedTuple):
    """How targets lie: so many input steps a target, axes of an array of them, whether inputs have deltas."""

    every: int
    axes: int
    deltas: bool


class Regressor(Estimator):
    """Predicts values along sequences of values: at each step, at the ends of chunks of steps, or at the end.

    Each prediction is made from the steps so far. NaN in the inputs counts as the channel's mean; a target
    that is NaN is not asked for.

    Args:
        model: a mixer, a pattern or a recipe, as for ``hippodrome race``.
        validation: share of the sequences that the best weights are chosen by.
        deltas: whether each channel's change since the step before is read beside it.
        width: channels of the backbone; None takes 64, or the recipe's.
        depth: its layers; None takes 2, or the recipe's.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate; None takes 1e-3, or the recipe's.
        batch_size: sequences a step; None takes 32, or the recipe's.
        dropout: in the backbone; None takes 0.1, or the recipe's.
        seed: of weights, order and the cut.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    def __init__(
        self,
        model: str = "s4d",
        validation: float = 0.2,
        deltas: bool = False,
        width: int | None = None,
        depth: int | None = None,
        budget: str = "30s",
        lr: float | None = None,
        batch_size: int | None = None,
        dropout: float | None = None,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.validation, self.deltas = model, validation, deltas
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, X: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray) -> "Regressor":
        """Learn from sequences and targets.

        Args:
            X: (n, t, c), (n, t) of one channel, or a list of sequences (t, c) or (t,) of any lengths.
            y: (n, t', o), or (n, t') or (n,) of one target, or a list alike. Where t' is shorter than t it
                divides it, and a target belongs to the last of its t / t' steps; (n,) belongs to the last
                step of each sequence, of whatever length.

        Raises:
            ValueError: arrays that do not fit one another, fewer than two sequences, infinite numbers, or a
                training that diverged.
        """
        cases = _sequences(X)
        targets, axes = _targets(y)
        if len(cases) != len(targets):
            raise ValueError(
                f"there are as many rows of targets as sequences; got {len(targets)} for {len(cases)}. Give "
                f"one for each"
            )
        every = 1 if axes == 1 else _every(cases, targets)
        form = _Form(every, axes, self.deltas)
        inputs = np.full((len(cases), max(map(len, cases)), cases[0].shape[1]), np.nan, dtype=np.float32)
        wanted = np.full((*inputs.shape[:2], targets[0].shape[1]), np.nan, dtype=np.float32)
        for i, (case, target) in enumerate(zip(cases, targets, strict=True)):
            inputs[i, : len(case)] = case
            wanted[i, len(case) - 1 if axes == 1 else slice(every - 1, len(case), every)] = target
        held = min(len(cases) - 1, max(1, round(self.validation * len(cases))))
        if len(cases) < 2:
            raise ValueError("a regression learns from some sequences and chooses by others; got one")
        order = np.random.default_rng(self.seed).permutation(len(cases))
        # The held part serves as test too: an estimator's user keeps a test set of their own.
        parts = (np.sort(order[held:]), np.sort(order[:held]), np.sort(order[:held]))
        details = {"source": "arrays", **form._asdict()}
        self._train(aligned_task(inputs, wanted, None, parts, "arrays", "X, y", details, deltas=self.deltas))
        return self

    def predict(self, X: Sequence[Any] | np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Predictions of sequences, in the axes of the targets learned from: an array where all sequences
        are as long as each other, else a list."""
        model, form = self._network, self.form_
        cases = _sequences(X)
        channels = model.channels // (2 if form.deltas else 1)
        for i, case in enumerate(cases):
            if case.shape[1] != channels or len(case) < form.every:
                raise ValueError(
                    f"this regressor reads {channels} channels and {form.every} steps a target; sequence {i} "
                    f"is {case.shape}. Give (n, t, c), or (n, t) for one channel, and whole targets"
                )
        device = next(model.parameters()).device
        found: list[np.ndarray] = []
        with torch.no_grad():
            for begin in range(0, len(cases), ROWS):
                rows = cases[begin : begin + ROWS]
                longest = max(map(len, rows))
                padded = np.full((len(rows), longest, channels), np.nan, dtype=np.float32)
                for i, row in enumerate(rows):
                    padded[i, : len(row)] = row
                read = with_deltas(padded) if form.deltas else padded
                said = model(torch.from_numpy(read).to(device))[0].cpu().numpy()
                for i, row in enumerate(rows):
                    first = len(row) - 1 if form.axes == 1 else form.every - 1
                    end = said[i, first : len(row) : form.every]
                    found.append(end if form.axes == 3 else end[:, 0])
        if form.axes == 1:
            return np.concatenate(found)
        return np.stack(found) if len({len(end) for end in found}) == 1 else found

    def score(self, X: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray) -> float:
        """The share of the targets' variance that is predicted (r2), mean over targets; NaN is not asked."""
        said, _ = _targets(self.predict(X))
        wanted, _ = _targets(y)
        flat, truth = np.concatenate(said).astype(float), np.concatenate(wanted).astype(float)
        if flat.shape != truth.shape:
            raise ValueError(f"targets do not fit the sequences: {flat.shape} predicted, {truth.shape} given")
        spread = np.nansum((truth - np.nanmean(truth, 0)) ** 2, 0)
        return float((1 - np.nansum((truth - flat) ** 2, 0) / spread).mean())

    def _open(self, run: runs.Run) -> None:
        super()._open(run)
        every, axes, deltas = (run.details.get(name) for name in _Form._fields)
        self.form_ = _Form(every or 1, axes or 3, bool(deltas))
        self.deltas = self.form_.deltas


def _sequences(X: Sequence[Any] | np.ndarray) -> list[np.ndarray]:
    """Sequences as a list of (t, c) in float32."""
    found = []
    for i, one in enumerate(X):
        case = np.asarray(one, dtype=np.float32)
        if case.ndim not in (1, 2) or not case.size or bool(np.isinf(case).any()):
            raise ValueError(
                f"a sequence is (t,) or (t, c) of finite numbers, NaN where one is missing; sequence {i} is "
                f"{case.shape}{' with infinite ones' if np.isinf(case).any() else ''}"
            )
        found.append(case[:, None] if case.ndim == 1 else case)
    if not found or len({case.shape[1] for case in found}) != 1:
        raise ValueError(
            f"sequences have one number of channels each, and there is one at least; got "
            f"{sorted({case.shape[1] for case in found}) or 'none'}"
        )
    return found


def _targets(y: Sequence[Any] | np.ndarray) -> tuple[list[np.ndarray], int]:
    """Targets as a list of (t', o) in float32, and the axes that an array of them has."""
    rows = [np.asarray(one, dtype=np.float32) for one in y]
    axes = {row.ndim + 1 for row in rows}
    if len(axes) != 1 or not axes <= {1, 2, 3} or any(np.isinf(row).any() for row in rows):
        raise ValueError(
            "targets are finite numbers (n, t, o), (n, t) or (n,), or a list of rows alike, NaN where one is "
            f"missing; got rows of {sorted(axes)} axes less one"
        )
    found = [row.reshape(-1, row.shape[-1] if row.ndim == 2 else 1) for row in rows]
    if len({row.shape[1] for row in found}) != 1:
        raise ValueError("all rows of targets have the same number of targets a step")
    return found, axes.pop()


def _every(cases: list[np.ndarray], targets: list[np.ndarray]) -> int:
    """Steps a target, the same in all sequences."""
    found = {len(case) // max(len(row), 1) for case, row in zip(cases, targets, strict=True)}
    every = found.pop() if len(found) == 1 else 0
    fits = every > 0 and all(
        len(case) // every == len(row) and len(case) % every == 0
        for case, row in zip(cases, targets, strict=True)
    )
    if not fits:
        lengths = sorted({(len(case), len(row)) for case, row in zip(cases, targets, strict=True)})[:3]
        raise ValueError(
            f"targets stand at every step of a sequence, or at every k-th with k the same throughout; got "
            f"(steps, targets) {lengths}. Cut the sequences to whole targets"
        )
    return every

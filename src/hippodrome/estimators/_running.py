"""A model's state beside a series that goes on: one observation in constant time and memory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hippodrome.generate.snapshot import filled, named
from hippodrome.models._forecasters import AnyForecaster


class _Runner(NamedTuple):
    """One state of the model, and the count of observations at which it was begun afresh."""

    state: tuple
    begun: int


class Running:
    """A model beside a series that goes on: rows in, forecasts out, all in arrays.

    A model takes observations by multiples of its ``stride``. So that there is a whole forecast after every
    single one, ``stride`` states run side by side, each an observation behind the next, and an observation
    moves one of them on by one patch.

    A state keeps the statistics of the window that it began with (``models.forecasting``). So that level and
    size follow the series, each state is begun afresh from the last ``look_back`` observations once ``renew``
    have come since; a forecast rests on ``look_back`` to ``look_back + renew`` observations. ``renew=1``
    begins afresh each time, which is what ``Forecaster.predict`` does, at the cost of a whole window each
    time; so does a model whose backbone reads both ways, as it has no state.

    Time and memory of an observation do not depend on how many came before: at most one forward pass over
    ``look_back`` steps, mostly one over a patch.

    Args:
        model: a trained forecaster.
        history: (t, v) what came before, oldest first: variates, observed and known covariates. Of more than
            ``look_back`` rows the last ones are read; of fewer, what lacks on the left is missing.
        dt: (t,) the steps in front of the rows, for a model trained with them.
        static: (s,) covariates that do not change.
        renew: observations from one fresh beginning to the next; None takes ``look_back``.

    Raises:
        ValueError: rows of another width than the model reads.
    """

    def __init__(
        self,
        model: AnyForecaster,
        history: np.ndarray,
        dt: np.ndarray | None = None,
        static: np.ndarray | None = None,
        renew: int | None = None,
    ) -> None:
        self.model, self.static, self.timed = model, static, dt is not None
        self.back, self.stride = model.look_back, model.stride
        self.wide = model.channels + model.moving
        if renew is not None and renew < 1:
            raise ValueError(f"renew is a number of observations, 1 or more; got {renew}")
        self.renew = (self.back if renew is None else renew) if model.streams else 1
        self.rows = np.full((2 * self.back, self.wide), np.nan, dtype=np.float32)
        self.steps = np.ones(2 * self.back, dtype=np.float32)
        self.end, self.count = self.back, 0
        self.runners: list[_Runner | None] = [None] * self.stride
        self.last: tuple[Tensor, Tensor | None, tuple] | None = None
        kept = self._checked(history)[-self.back :]
        self.rows[self.back - len(kept) : self.back] = kept
        if dt is not None:
            self.steps[self.back - len(kept) : self.back] = dt[-self.back :]
        self.outputs = self._advance()

    @property
    def window(self) -> np.ndarray:
        """The last ``look_back`` rows (look_back, v)."""
        return self.rows[self.end - self.back : self.end]

    def update(self, row: np.ndarray, dt: float = 1.0) -> None:
        """Take in one row (v,): NaN where a value is missing."""
        if self.end == len(self.rows):
            self.rows[: self.back], self.steps[: self.back] = self.window, self.steps[self.back :]
            self.end = self.back
        self.rows[self.end], self.steps[self.end] = self._checked(row[None])[0], dt
        self.end += 1
        self.count += 1
        self.outputs = self._advance()

    def forecast(self, known: np.ndarray | None = None) -> np.ndarray:
        """Point and quantiles (horizon, c, 1 + q) of the steps after the last row.

        ``known`` (horizon, k) are the covariates known of these steps, for a model that reads such.
        """
        covariates = self.model.covariates
        if covariates is None or not covariates.known:
            return self.outputs
        rows, paces, state = self.last  # type: ignore[misc]
        if known is None or known.shape != (self.model.horizon, covariates.known):
            got = "none" if known is None else f"{known.shape}"
            raise ValueError(
                f"this model reads {covariates.known} covariates that are known ahead: give their values at "
                f"the next {self.model.horizon} steps; got {got}"
            )
        return self._run(rows, paces, state, torch.from_numpy(known.astype(np.float32)))[0]

    def _advance(self) -> np.ndarray:
        """Move on the state whose turn it is, or begin it afresh; what it forecasts."""
        turn = self.count % self.stride
        runner = self.runners[turn]
        fresh = runner is None or self.count - runner.begun >= self.renew
        length = self.back if fresh else self.stride
        part = slice(self.end - length, self.end)
        rows = torch.from_numpy(self.rows[part].copy())
        paces = torch.from_numpy(self.steps[part].copy()) if self.timed else None
        before = self.model.init_state(1, self.back + self.renew + self.stride) if fresh else runner.state  # type: ignore[union-attr]
        begun = self.count if fresh else runner.begun  # type: ignore[union-attr]
        known = None
        if self.model.covariates is not None and self.model.covariates.known:
            # The state does not depend on what is known ahead; the forecast is made again when it is told.
            known = torch.zeros(self.model.horizon, self.model.covariates.known)
            self.last = (rows, paces, before)
        outputs, state = self._run(rows, paces, before, known)
        self.runners[turn] = _Runner(state, begun)
        return outputs

    def _run(
        self, rows: Tensor, paces: Tensor | None, state: tuple, known: Tensor | None
    ) -> tuple[np.ndarray, tuple]:
        model = self.model
        device = model.location.device
        beside: dict[str, Tensor] = {}
        if known is not None:
            beside["known"] = known[None].to(device)
        if paces is not None:
            beside["dt"] = paces[None].to(device)
        if self.static is not None and not bool(state[-1].all()):
            beside["static"] = torch.from_numpy(self.static.astype(np.float32))[None].to(device)
        with torch.no_grad():
            outputs, after = model(rows[None].to(device), state, **beside)
        return outputs[0].float().cpu().numpy(), after

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        if rows.ndim != 2 or rows.shape[1] != self.wide:
            raise ValueError(
                f"a row holds {self.wide} numbers, as the model was trained: {self.model.channels} variates"
                + (f" and {self.model.moving} covariates" if self.model.moving else "")
                + f"; got {' x '.join(map(str, rows.shape))}"
            )
        return rows

    def tensors(self) -> dict[str, Tensor]:
        """All that is carried, by name, for a file."""
        found = {
            "rows": torch.from_numpy(self.window.copy()),
            "steps": torch.from_numpy(self.steps[self.end - self.back : self.end].copy()),
            "outputs": torch.from_numpy(self.outputs),
        }
        if self.last is not None:
            rows, paces, state = self.last
            found |= {"last.rows": rows} | ({} if paces is None else {"last.steps": paces})
            found |= dict(named(state, "last.state"))
        for turn, runner in enumerate(self.runners):
            if runner is not None:
                found |= dict(named(runner.state, f"{turn}.state"))
        if self.static is not None:
            found["static"] = torch.from_numpy(self.static)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    def facts(self) -> dict[str, Any]:
        """The numbers that belong to ``tensors``."""
        begun = [None if runner is None else runner.begun for runner in self.runners]
        return {"count": self.count, "begun": begun, "renew": self.renew, "timed": self.timed}

    @classmethod
    def restored(
        cls, model: AnyForecaster, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "Running":
        """What ``tensors`` and ``facts`` were taken from."""
        steps = tensors["steps"].numpy() if facts["timed"] else None
        static = tensors["static"].numpy() if "static" in tensors else None
        made = cls(model, tensors["rows"].numpy(), steps, static, facts["renew"])
        made.count = facts["count"]
        device = model.location.device
        like = model.init_state(1, made.back + made.renew + made.stride)
        placed = {name: tensor.to(device) for name, tensor in tensors.items()}
        for turn, begun in enumerate(facts["begun"]):
            made.runners[turn] = (
                None if begun is None else _Runner(filled(like, f"{turn}.state", placed), begun)
            )
        made.outputs = tensors["outputs"].numpy()
        if "last.rows" in tensors:
            paces = tensors.get("last.steps")
            made.last = (tensors["last.rows"], paces, filled(like, "last.state", placed))
        return made

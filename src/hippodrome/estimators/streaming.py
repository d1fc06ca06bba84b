"""A forecaster beside a series that goes on: observations in, forecasts with bands out."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from hippodrome.data._fitting import own_scales
from hippodrome.data._panel import Reading
from hippodrome.estimators._intervals import ends, scales
from hippodrome.estimators._running import Running
from hippodrome.estimators._ticker import Ticker
from hippodrome.estimators.conformal import Adaptive, Conformal, Number, banded, pairs_of
from hippodrome.generate.snapshot import fingerprints
from hippodrome.train.checkpoint import write_atomically

if TYPE_CHECKING:
    import pandas

FORMAT = "hippodrome.stream.1"
"""What the file of a stream is, and its version."""


class _Issued(NamedTuple):
    """A forecast that was asked for: ``after`` how many observations, its outputs (h, c, 1 + q), the scale
    (c,), and how wide the band of each level was made (levels, h, c)."""

    after: int
    outputs: np.ndarray
    scale: np.ndarray
    wide: np.ndarray


class Stream:
    """Takes observations of one series one by one, and forecasts after any of them.

    How the model's state is carried on, and its statistics renewed, says ``_running.Running``: an update
    costs the same however many came before.

    With ``adaptive`` levels the bands follow the errors of the forecasts that were asked for (``Adaptive`` in
    ``conformal``), and start from the forecaster's conformal scores where it has some.

    Where the forecaster scales each series by its own numbers, those of the history stay.

    Args:
        forecaster: a fitted ``Forecaster``.
        df: the history, in the form that the forecaster learned from; None takes the frame learned from.
        series: which series of a long frame that holds several.
        static_df: static covariates, as for ``fit``.
        renew: observations from one fresh beginning to the next; None takes ``look_back``, 1 forecasts
            exactly what ``predict`` does.
        adaptive: levels in percent whose bands adapt.
        rate: of the adaptation.
        memory: scores kept of each lead.

    Raises:
        ValueError: a history that cannot be read or has no value, or several series and none named.
    """

    def __init__(
        self,
        forecaster: Any,
        df: Any = None,
        series: str | int | None = None,
        static_df: Any = None,
        renew: int | None = None,
        adaptive: Sequence[Number] = (),
        rate: Number = 0.01,
        memory: int = 200,
    ) -> None:
        self.forecaster, self.network = forecaster, forecaster._network
        panel = forecaster._panel(df, static_df)
        self.reading = panel.reading
        if series is None and len(panel.ids) > 1:
            raise ValueError(
                f"a stream follows one series; the frame has {len(panel.ids)}, {panel.ids[0]!r} and others. "
                f"Name it: series={panel.ids[0]!r}"
            )
        series = None if series is None else str(series)
        if series is not None and series not in panel.ids:
            raise ValueError(f"there is no series {series!r} in the frame; it has {panel.ids[:5]}. Name one")
        at = 0 if series is None else panel.ids.index(series)
        part = slice(int(panel.offsets[at]), int(panel.offsets[at + 1]))
        self.key, self.long = panel.keys[at], panel.long
        self.ticker = Ticker(self.reading, panel.rhythm.of(at), panel.times[part][-1])
        values = panel.values[part]
        if np.isnan(values[-self.network.look_back :]).all():
            raise ValueError(f"series {self.key!r} has no value to forecast from in its last look-back")
        self.location, self.size = np.zeros(values.shape[1]), np.ones(values.shape[1])
        if forecaster._fitted().details.get("scaler") == "local":
            self.location, self.size = (numbers[at] for numbers in own_scales(panel))
        columns = [(values - self.location) / self.size]
        columns += [one[part] for one in (panel.observed, panel.known) if one is not None]
        dt = None if panel.dt is None else panel.dt[part].astype(np.float32)
        static = None if panel.static is None else panel.static[at]
        self.running = Running(self.network, np.concatenate(columns, 1), dt, static, renew)
        self.conformal: Conformal | None = getattr(forecaster, "conformal_", None)
        self.adaptive = {float(level): self._adaptive(level, rate, memory) for level in adaptive}
        self.issued: deque[_Issued] = deque()

    def update(
        self,
        value: Any,
        stamp: Any = None,
        *,
        observed: Sequence[Number] | np.ndarray | None = None,
        known: Sequence[Number] | np.ndarray | None = None,
    ) -> None:
        """Take in one observation.

        Args:
            value: a number, or one for each variate; NaN where it is missing. Or a mapping of column names to
                cells, stamp and covariates among them.
            stamp: its stamp; None takes the one that follows. Stamps that were passed over count as missing
                values.
            observed: the covariates seen in the past alone, in the order of the forecaster's.
            known: those known ahead too, without what is made of the stamps.

        Raises:
            ValueError: a stamp that is not after the last one or not on the series' grid, or a wrong number
                of values.
        """
        if isinstance(value, Mapping):
            value, stamp, observed, known = self._picked(value)
        reading = self.reading
        parts = [_row(value, len(reading.targets or ()), "values")]
        parts.append(_row(observed, len(reading.observed), "observed covariates"))
        parts.append(_row(known, len(reading.known), "known covariates"))
        count, time = self.ticker.place(stamp)
        missing = np.full_like(parts[0], np.nan), np.full(parts[1].size + parts[2].size, np.nan)
        lost = max(0, count - 1 - self.network.look_back)  # before the window that the model will look at
        if lost:
            self.issued.clear()
        between = self.ticker.ahead(count - 1 - lost, lost)
        for i, absent in enumerate(between):
            self._take(*missing, absent, 1 + lost if not i else 1)
        self._take(parts[0], np.concatenate(parts[1:]), time)

    def forecast(self, level: Sequence[Number] | None = None, known: Any = None) -> "pandas.DataFrame":
        """The ``horizon`` steps after the last observation, as ``Forecaster.predict`` gives them.

        Args:
            level: of the bands, in percent; None takes the adaptive ones, else the model's own quantiles.
            known: (horizon, k) the covariates known ahead, without what is made of the stamps.

        Raises:
            ValueError: covariates that are missing, or a level that the forecaster has no band of.
        """
        import pandas

        h = self.network.horizon
        ahead = self.ticker.ahead(h)
        told = self._known_ahead(known, ahead)
        outputs = self.running.forecast(told)
        found = {"": outputs[..., 0]} | self._bands(outputs, level)
        found = {end: values * self.size + self.location for end, values in found.items()}
        names = list(self.reading.targets or ())
        if self.long and len(names) == 1:
            names = [self.forecaster.model]
        columns: dict[str, Any] = {"unique_id": self.key, "ds": ahead} if self.long else {"ds": ahead}
        for i, name in enumerate(names):
            columns |= {f"{name}{end}": values[:, i] for end, values in found.items()}
        return pandas.DataFrame(columns)

    def _bands(self, outputs: np.ndarray, level: Sequence[Number] | None) -> dict[str, np.ndarray]:
        """Ends of bands (h, c) by what follows a name in the columns."""
        if level is None and not self.adaptive:
            pairs = pairs_of(self.network.quantiles)
            level = sorted(pairs)
        levels = sorted(self.adaptive) if level is None else [float(one) for one in level]
        wanted = [one for one in levels if one not in self.adaptive]
        scale = self._scale()
        found = {}
        if wanted:
            fixed = ends(self.network, self.conformal, outputs[None], scale[None], wanted)[0]
            found = {one: fixed[:, :, i] for i, one in enumerate(wanted)}
        wide = [self.adaptive[one].wide() for one in self.adaptive]
        for one, far in zip(self.adaptive, wide, strict=True):
            low, high, _ = self._base(one)
            found[one] = banded(outputs[..., low], outputs[..., high], far * scale)
        if self.adaptive:
            if self.issued and self.issued[-1].after == self.running.count:
                self.issued.pop()
            self.issued.append(_Issued(self.running.count, outputs, scale, np.stack(wide)))
        lows = {f"-lo-{one:g}": found[one][..., 0] for one in sorted(levels, reverse=True)}
        quantiles = self.network.quantiles
        middle = {"-median": outputs[..., 1 + quantiles.index(0.5)]} if 0.5 in quantiles else {}
        return lows | middle | {f"-hi-{one:g}": found[one][..., 1] for one in sorted(levels)}

    def _base(self, level: float) -> tuple[int, int, str]:
        if self.conformal is not None:
            return self.conformal.base(level)
        pairs = pairs_of(self.network.quantiles)
        return (*pairs[level], "") if level in pairs else (*pairs[max(pairs)], "") if pairs else (0, 0, "")

    def _adaptive(self, level: Number, rate: Number, memory: int) -> Adaptive:
        shape = (0, self.network.horizon, self.network.channels)
        scores = np.zeros(shape)
        if self.conformal is not None:
            low, _, name = self.conformal.base(float(level))
            scores = self.conformal.scores[name]
            scores = scores if low else np.abs(scores)
        return Adaptive(level, scores, rate, memory)

    def _scale(self) -> np.ndarray:
        past = self.running.window[None, :, : self.network.channels]
        return scales(self.network, past, "train" if self.conformal is None else self.conformal.scaling)[0]

    def _learn(self, truth: np.ndarray) -> None:
        """Score the forecasts that were asked for by the observation that came (c,)."""
        h, now = self.network.horizon, self.running.count
        while self.issued and now - self.issued[0].after > h:
            self.issued.popleft()
        if not self.issued:
            return
        for place, (level, made) in enumerate(self.adaptive.items()):
            low, high, _ = self._base(level)
            scores = np.full((h, len(truth)), np.nan)
            wide = np.zeros_like(scores)
            for one in self.issued:
                lead = now - one.after - 1
                base = one.outputs[lead]
                scores[lead] = np.maximum(base[:, low] - truth, truth - base[:, high]) / one.scale
                wide[lead] = one.wide[place, lead]
            made.tell(scores, wide)

    def _take(self, values: np.ndarray, covariates: np.ndarray, time: Any, count: int = 1) -> None:
        """Hand a row to the running model, with what is made of its stamp."""
        pace = self.ticker.pace(time)
        made = self.ticker.covariates(np.asarray([time]), np.asarray([pace]))
        values = (values - self.location) / self.size
        self.running.update(np.concatenate([values, covariates, made[0]]), pace)
        self.ticker.take(time, count)
        if self.adaptive:
            self._learn(values)

    def _known_ahead(self, known: Any, ahead: np.ndarray) -> np.ndarray | None:
        covariates = self.network.covariates
        if covariates is None or not covariates.known:
            return None
        own = len(self.reading.known)
        given = np.zeros((len(ahead), 0)) if known is None else np.asarray(known, dtype=np.float64)
        if given.shape != (len(ahead), own):
            raise ValueError(
                f"this forecaster reads {', '.join(self.reading.known)} ahead: give known with their values "
                f"at the next {len(ahead)} steps, shape ({len(ahead)}, {own}); got {given.shape}"
            )
        return np.concatenate([given, self.ticker.covariates(ahead, np.ones(len(ahead)))], 1)

    def _picked(self, row: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
        reading = self.reading
        known = {*(reading.targets or ()), *reading.observed, *reading.known, "unique_id"}
        known |= {reading.time, *reading.static}
        other = str(row.get("unique_id", self.key))
        if self.long and other != str(self.key):
            raise ValueError(f"this is a stream of series {self.key!r}; got a row of {other!r}. Leave it out")
        strange = [name for name in row if name not in known]
        if strange:
            raise ValueError(
                f"there is no column {strange[0]!r} in what the forecaster learned from. Drop it"
            )
        stamp = None if reading.time is None else row.get(reading.time)
        names = (reading.targets or (), reading.observed, reading.known)
        values, observed, ahead = ([row.get(name, np.nan) for name in part] for part in names)
        return values, stamp, observed, ahead

    def save(self, path: str | Path) -> None:
        """Write all that is carried into one file, in one piece; ``Stream.load`` goes on from it."""
        from safetensors.torch import save

        tensors = {f"running.{name}": tensor for name, tensor in self.running.tensors().items()}
        for level, made in self.adaptive.items():
            for name in ("alpha", "scores", "places"):
                tensors[f"adaptive.{level:g}.{name}"] = torch.from_numpy(getattr(made, name).copy())
        for name in _Issued._fields:
            if self.issued:
                stacked = np.stack([np.asarray(getattr(one, name)) for one in self.issued])
                tensors[f"issued.{name}"] = torch.from_numpy(stacked)
        facts = {
            "running": self.running.facts(),
            "key": self.key.item() if isinstance(self.key, np.generic) else self.key,
            "long": self.long,
            "scales": [self.location.tolist(), self.size.tolist()],
            "reading": self.reading.kept(),
            "ticker": self.ticker.facts(),
            "adaptive": {f"{level:g}": [m.rate, m.memory] for level, m in self.adaptive.items()},
        }
        head = {**fingerprints(self.network), "format": FORMAT, "facts": json.dumps(facts)}
        content = save(tensors, metadata=head)
        write_atomically(Path(path), lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | Path, forecaster: Any) -> "Stream":
        """Go on from a file of ``save``. Raises ValueError for another file, or one of another model."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(f"{path} is no saved stream ({error}). Name a file of Stream.save") from None
        if head.get("format") != FORMAT:
            raise ValueError(f"{path} is no saved stream. Name a file of Stream.save")
        network = forecaster._network
        if any(head.get(name) != value for name, value in fingerprints(network).items()):
            raise ValueError(f"{path} is a stream of another model. Load the one it was saved with")
        facts = json.loads(head["facts"])
        made = cls.__new__(cls)
        made.forecaster, made.network = forecaster, network
        made.reading = Reading.again(facts["reading"])
        made.location, made.size = np.asarray(facts["scales"])
        made.key, made.long = facts["key"], facts["long"]
        made.ticker = Ticker.restored(made.reading, facts["ticker"])
        own = {name.removeprefix("running."): t for name, t in tensors.items() if name.startswith("running.")}
        made.running = Running.restored(network, own, facts["running"])
        made.conformal = getattr(forecaster, "conformal_", None)
        made.adaptive = {}
        for text, (rate, memory) in facts["adaptive"].items():
            one = made._adaptive(float(text), rate, memory)
            for name in ("alpha", "scores", "places"):
                setattr(one, name, tensors[f"adaptive.{text}.{name}"].numpy())
            made.adaptive[float(text)] = one
        parts = [tensors[f"issued.{name}"].numpy() for name in _Issued._fields if "issued.after" in tensors]
        made.issued = deque(_Issued(int(n), *rest) for n, *rest in zip(*parts, strict=True))
        return made


def _row(values: Any, count: int, what: str) -> np.ndarray:
    """Numbers (count,) of one row."""
    try:
        found = np.zeros(0) if values is None else np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (ValueError, TypeError):
        found = np.full(1, np.inf)
    if np.isinf(found).any():
        raise ValueError(f"{what} are finite numbers, NaN where one is missing; got {values!r}. Correct them")
    if found.shape != (count,):
        raise ValueError(f"a row has {count} {what}; got {found.size}. Give them in the order learned")
    return found

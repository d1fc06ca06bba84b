"""How a forecaster reads its frames: what its arguments say, and what of a panel it cannot go on from."""

from typing import Any

import numpy as np
import torch

from hippodrome import config, runs
from hippodrome.data._panel import Panel, Reading
from hippodrome.data._table import Table
from hippodrome.estimators.conformal import FILE
from hippodrome.models.base import accepts_dt

OWN = ("model", "validation", "dropout", "language", "settings")
"""Arguments that a run folder has by their names."""


def wanted(forecaster: Any) -> Reading:
    """How the frame of a ``Forecaster``'s ``fit`` is to be read.

    Raises:
        ValueError: a text where a list of columns is meant.
    """
    groups: dict[str, Any] = {
        name: getattr(forecaster, name) for name in ("targets", "observed", "known", "static")
    }
    for name, given in groups.items():
        if isinstance(given, str):
            raise ValueError(f"{name} is a list of columns; got {given!r}. Write [{given!r}]")
    groups = {name: None if given is None else tuple(given) for name, given in groups.items()}
    options = ("time", "calendar", "irregular", "gaps", "frequencies")
    return Reading(**groups, **{name: getattr(forecaster, name) for name in options})


def again(details: dict[str, Any], table: Table) -> Reading:
    """How another table is to be read, after what is known of the one that was learned from.

    Raises:
        ValueError: one without ``unique_id`` where series were told apart by it.
    """
    kept = details.get("reading")
    reading = Reading() if kept is None else Reading.again(kept)
    if reading.time not in table.columns:
        reading = reading._replace(time=None)
    plain = not reading.levels and all(name in table.columns for name in reading.targets or ())
    if details.get("long") and "unique_id" not in table.columns and not plain:
        raise ValueError(
            f"this forecaster learned series by unique_id; got columns "
            f"{', '.join(map(repr, table.columns))}. Give it with unique_id, ds and the columns it learned"
        )
    return reading


def kept(forecaster: Any) -> dict[str, Any]:
    """The arguments that a run folder keeps beside what its model and its settings tell, so that a forecaster
    that is loaded trains as the one that was saved did."""
    language, settings = forecaster.language, forecaster.settings
    return {
        "validation": forecaster.validation,
        "dropout": forecaster.dropout,
        "language": None if language is None else str(language),
        "settings": None if settings is None else dict(settings),
    }


def described(run: runs.Run) -> dict[str, Any]:
    """The constructor's arguments that a run folder tells."""
    reading = run.details.get("reading") or {}
    names = ("targets", "time", "observed", "known", "static", "irregular", "gaps", "frequencies")
    return {
        "horizon": run.spec["horizon"],
        "look_back": run.spec["look_back"],
        "quantiles": tuple(run.spec["quantiles"]),
        "scaler": run.details.get("scaler"),
        "calendar": bool(reading.get("calendar")),
        "intervals": "conformal" if (run.folder / FILE).exists() else "quantiles",
        **{name: reading[name] for name in names if name in reading},
        **{name: run.details[name] for name in OWN if name in run.details},
    }


def scaler_of(scaler: str | None, panel: Panel) -> str:
    """Whether all series are scaled alike, "global", or each by itself, "local".

    Raises:
        ValueError: neither.
    """
    if scaler is None:
        return "local" if len(panel.ids) > 1 else "global"
    if scaler not in ("global", "local"):
        raise ValueError(f"scaler is 'global', 'local' or None; got {scaler!r}. Take one")
    return scaler


def check_seen(model: Any, panel: Panel) -> None:
    """Raise where a panel has not what a model reads.

    Raises:
        ValueError: another number of variates, or a series of whose last steps nothing was seen.
    """
    if panel.values.shape[1] != model.channels:
        raise ValueError(
            f"this forecaster learned {model.channels} variates a step, and series {panel.ids[0]!r} has "
            f"{panel.values.shape[1]}. Give the columns it learned from"
        )
    seen = np.concatenate([[0], np.cumsum(~np.isnan(panel.values).all(1))])
    ends = panel.offsets[1:]
    found = seen[ends] - seen[np.maximum(ends - model.look_back, panel.offsets[:-1])]
    if not found.all():
        empty = panel.ids[int(np.flatnonzero(found == 0)[0])]
        raise ValueError(
            f"series {empty!r} has no value to forecast from in its last {model.look_back} steps. Leave it "
            f"out"
        )


def check_timed(model: str, spec: dict[str, Any] | None) -> None:
    """Raise where a backbone cannot be told of steps that differ.

    Raises:
        ValueError: it has mixers without continuous time, or reads both ways.
    """
    with torch.random.fork_rng(devices=[]):
        backbone = None if spec is None else config.build(spec, "backbones")
    if backbone is None or not accepts_dt(backbone) or not getattr(backbone, "causal", True):
        raise ValueError(
            f"{model} has no continuous time, so it cannot be told of steps that differ. Take a model that "
            f"has, such as s4d, s5 or mamba2, or resample to an even step"
        )

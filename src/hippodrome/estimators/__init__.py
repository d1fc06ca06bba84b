"""Estimators in the manners of scikit-learn: arguments kept as given, ``fit``, ``predict``, ``save``.

Each wraps one run folder (``hippodrome.runs``). ``load`` opens any run folder, a race's winner too, as the
estimator of its kind. Frames follow the forecasting convention ``unique_id, ds, y`` with prediction columns
such as ``s4d``, ``s4d-lo-80`` and ``s4d-hi-80``.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hippodrome import runs
from hippodrome.config.patterns import AND
from hippodrome.estimators._reading import described
from hippodrome.estimators.classifier import Classifier
from hippodrome.estimators.detector import FILE, AnomalyDetector
from hippodrome.estimators.forecaster import Forecaster
from hippodrome.estimators.generator import Generator
from hippodrome.estimators.imputer import Imputer
from hippodrome.estimators.regressor import Regressor

_INSTEAD = {
    "masked_language": "Use hippodrome fill or hippodrome embed",
    "encoder": "Use hippodrome embed",
    "video": "Use hippodrome generate",
}
"""What to do with models of kinds that have no estimator."""


def load(
    path: str | Path, device: str = "cpu"
) -> Forecaster | Classifier | Generator | Imputer | AnomalyDetector | Regressor:
    """Open a run folder, or the winner of a race's folder, as the estimator of its kind.

    Raises:
        ValueError: no run folder, or a kind of model that has no estimator.
    """
    folder = Path(path)
    if (folder / "race.json").exists() and not (folder / "config.json").exists():
        folder = folder / "winner"
        if not folder.is_dir():
            raise ValueError(f"the race in {path} has no winner yet; start it again and it goes on")
    run = runs.load(folder, device)
    made = {
        "forecasting": Forecaster,
        "token_forecasting": Forecaster,
        "classification": Classifier,
        "vision": Classifier,
        "language": Generator,
        "imputation": Imputer,
        "regression": Regressor,
    }.get(run.spec["kind"])
    if (folder / FILE).exists():
        made = AnomalyDetector
    if made is None:
        raise ValueError(
            f"{folder} holds a model for {run.spec['kind']}, which has no estimator. "
            f"{_INSTEAD.get(run.spec['kind'], 'Evaluate it')}, or open it with hippodrome.runs.load."
        )
    model, depth = _described(run.spec["backbone"])
    estimator: Any = made(
        model=model,
        width=None if run.spec["backbone"] is None else run.model.backbone.d_model,
        depth=depth,
        budget=str(run.settings.budget),
        lr=run.settings.lr,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        device=device,
    )
    if isinstance(estimator, Forecaster):
        estimator.set_params(**described(run))
    estimator._open(run)
    return estimator


def _described(backbone: dict[str, Any] | None) -> tuple[str, int | None]:
    """Pattern and depth of the spec of a backbone: of a stack, or of what is made of stacks."""
    if backbone is None:
        return "linear", None
    if backbone["kind"] == "stack":
        mixers = [block["mixer"] for block in backbone["blocks"]]
        kinds = [_layer(mixer) for mixer in mixers]
        return pattern(kinds), len(kinds)
    firsts = [part[0] if isinstance(part, list) and part else part for part in backbone.values()]
    stacks = [_described(part) for part in firsts if isinstance(part, dict) and part.get("kind") == "stack"]
    if not stacks:  # mixers side by side, such as those over time and across variates
        layers = [part for part in backbone.values() if isinstance(part, list) and isinstance(part[0], dict)]
        stacks = [(pattern([_layer(mixer) for mixer in part]), len(part)) for part in layers] or [("", 1)]
    parts = list(dict.fromkeys(made for made, _ in stacks if made))
    return ":".join([backbone["kind"], *parts]), max(depth or 1 for _, depth in stacks)


def _layer(mixer: dict[str, Any]) -> str:
    """What a mixer's spec is called in a pattern."""
    if mixer["kind"] == "bidirectional":
        return f"bi-{mixer['ahead']['kind']}"
    if mixer["kind"] == "scan2d" and mixer["orders"] is not None and len(mixer["orders"]) == 1:
        return f"{mixer['orders'][0]}-{mixer['mixers'][0]['kind']}"
    if mixer["kind"] == "parallel":
        return AND.join(one["kind"] for one in mixer["mixers"])
    return str(mixer["kind"])


def pattern(layers: Sequence[str]) -> str:
    """The shortest pattern that, repeated, gives these layers: a, a, b, a, a, b is ax2+b."""
    length = next(
        n for n in range(1, len(layers) + 1) if all(layers[i] == layers[i % n] for i in range(len(layers)))
    )
    runs_of = [(kind, len(list(group))) for kind, group in groupby(layers[:length])]
    return "+".join(kind if count == 1 else f"{kind}x{count}" for kind, count in runs_of)


__all__ = [
    "AnomalyDetector",
    "Classifier",
    "Forecaster",
    "Generator",
    "Imputer",
    "Regressor",
    "load",
    "pattern",
]

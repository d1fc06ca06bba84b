"""Hippodrome: state space sequence models, from HiPPO to Mamba-2 and hybrids, behind one contract."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hippodrome import race as race
    from hippodrome.checkpoints import open_model as open_model
    from hippodrome.estimators import AnomalyDetector as AnomalyDetector
    from hippodrome.estimators import Classifier as Classifier
    from hippodrome.estimators import Forecaster as Forecaster
    from hippodrome.estimators import Generator as Generator
    from hippodrome.estimators import Imputer as Imputer
    from hippodrome.estimators import Regressor as Regressor
    from hippodrome.estimators import load as load

__version__ = "0.1.0"

# Resolved on first use (PEP 562), so that `import hippodrome` and `hippodrome --help` stay fast.
_PUBLIC = {
    "AnomalyDetector": "hippodrome.estimators",
    "Classifier": "hippodrome.estimators",
    "Forecaster": "hippodrome.estimators",
    "Generator": "hippodrome.estimators",
    "Imputer": "hippodrome.estimators",
    "Regressor": "hippodrome.estimators",
    "load": "hippodrome.estimators",
    "open_model": "hippodrome.checkpoints",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for. ``hippodrome.race`` is a package one can call."""
    if name == "race":
        return import_module("hippodrome.race")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'hippodrome' has no attribute {name!r}; it offers {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


__all__ = [
    "AnomalyDetector",
    "Classifier",
    "Forecaster",
    "Generator",
    "Imputer",
    "Regressor",
    "__version__",
    "load",
    "open_model",
    "race",
]

"""The race: models side by side on any data, under one budget, with a report that says which to take.

This package can be called: ``hippodrome.race("text.txt", ["mamba2", "s4d"], budget="60s")`` is the function
``race`` of ``run.py``, whose arguments it takes.
"""

import sys
from types import ModuleType
from typing import Any

from hippodrome.race.plan import RacePlan
from hippodrome.race.result import RaceResult
from hippodrome.race.run import race
from hippodrome.race.settings import RaceSettings


class _CallablePackage(ModuleType):
    """Lets ``hippodrome.race`` be both the package and the verb."""

    def __call__(self, *args: Any, **kwargs: Any) -> RaceResult:
        return race(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage

__all__ = ["RacePlan", "RaceResult", "RaceSettings", "race"]

"""Data of every kind behind one call: a path or a built-in name becomes a task."""

from hippodrome.data._open import BUILT_IN, open_source, options_of
from hippodrome.data.base import Task

__all__ = ["BUILT_IN", "Task", "open_source", "options_of"]

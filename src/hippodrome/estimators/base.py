"""What the estimators share: parameters by name, one run folder, saving."""

import inspect
import shutil
import tempfile
from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hippodrome import runs
from hippodrome.config import grid, published, stack_spec, variates, with_sizes
from hippodrome.data.base import Task
from hippodrome.train.checkpoint import write_folder
from hippodrome.train.settings import Budget, TrainSettings

WIDTH, DEPTH, DROPOUT, RATE, BATCH = 64, 2, 0.1, 1e-3, 32
"""What stands for a value that is None, where no recipe says another."""


def model_spec(
    model: str,
    kind: str,
    facts: Mapping[str, Any],
    details: Mapping[str, Any],
    width: int | None,
    depth: int | None,
    dropout: float | None,
    own: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the trainer that a recipe brings, and what the spec of a task's model says of it.

    ``model`` is a mixer, a pattern or a recipe; ``facts`` and ``details`` are the task's, ``own`` settings of
    the model around its backbone. A width, depth or dropout of None is the recipe's, or the usual one.

    Raises:
        ValueError: no mixer, pattern or recipe of this name.
    """
    if model in published.names():
        recipe = published.find(model)
        if dropout is not None:
            inside = recipe.model.model_copy(update={"dropout": dropout})
            recipe = recipe.model_copy(update={"model": inside})
        made = published.spec_of(recipe, kind, facts, details, width, depth, own)
        return dict(recipe.training), made
    known = {**facts, **own}
    options = with_sizes(model, None, grid(kind, known, details), variates(kind, known))
    share = DROPOUT if dropout is None else dropout
    return {}, {"backbone": stack_spec(model, width or WIDTH, depth or DEPTH, options=options, dropout=share)}


class Estimator(ABC):
    """What the three share: parameters by name, one run, saving and loading."""

    model: str
    width: int | None
    depth: int | None
    budget: str
    lr: float | None
    batch_size: int | None
    dropout: float | None
    seed: int
    device: str
    folder: str | Path | None
    shows_progress = False
    """Whether a bar on standard error follows the training."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they were given."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> "Estimator":
        """Change constructor arguments; an unknown name raises ValueError."""
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}; it has "
                    f"{', '.join(known)}. Take one of them"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = {n: p.default for n, p in inspect.signature(type(self)).parameters.items()}
        changed = (f"{n}={v!r}" for n, v in self.get_params().items() if v != defaults[n])
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def save(self, path: str | Path) -> Path:
        """Copy the run folder to ``path``, which must not exist; ``hippodrome.load`` opens it."""
        run, target = self._fitted(), Path(path)
        if target.exists():
            raise ValueError(f"{target} exists already. Name a new folder, or remove it")
        ignored = shutil.ignore_patterns("checkpoints")
        write_folder(target, lambda it: shutil.copytree(run.folder, it, ignore=ignored, dirs_exist_ok=True))
        return target

    def evaluate(self, task: Task) -> dict[str, float]:
        """The model's metrics on the test part of a task of ``hippodrome.data``."""
        return runs.evaluate(self._fitted(), task, "test")

    def _fitted(self) -> runs.Run:
        run: runs.Run | None = getattr(self, "run_", None)
        if run is None:
            raise ValueError(
                f"this {type(self).__name__} has learned nothing yet: call fit, or open one with load"
            )
        return run

    @property
    def _network(self) -> Any:
        return self._fitted().model

    def _train(self, task: Task, begin: Mapping[str, Tensor] | None = None) -> None:
        """Train on a task in the folder, or in one that lives as long as this estimator.

        ``begin`` holds tensors by their names in the model that are begun with.
        """
        if self.folder is None:
            self.temporary_ = tempfile.TemporaryDirectory(prefix="hippodrome-")
            place = Path(self.temporary_.name) / "run"
        else:
            place = Path(self.folder)
        training, backbone = self._published(task)
        given = {"batch_size": self.batch_size, "lr": self.lr}
        defaults = {"batch_size": BATCH, "lr": RATE, **training}
        settings = TrainSettings.model_validate(
            {
                **defaults,
                **{name: value for name, value in given.items() if value is not None},
                "budget": Budget.parse(self.budget),
                "seed": self.seed,
                "progress": self.shows_progress,
                "device": self.device,
            }
        )
        spec, language = self._read_by({"kind": task.kind, **backbone, **self._facts()})
        result = runs.train(spec, task, settings, place, start_from=begin or language)
        if result.status == "diverged":
            raise ValueError(f"the training diverged: {result.message}")
        self.result_ = result
        self._open(runs.load(place, self.device))

    def _published(self, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of the trainer that a recipe brings, and what the spec says of the model."""
        sized = (self.width, self.depth, self.dropout)
        return model_spec(self.model, task.kind, task.facts, task.details, *sized, self._facts())

    def _read_by(self, spec: dict[str, Any]) -> tuple[dict[str, Any], Mapping[str, Tensor] | None]:
        """The spec, and tensors by name to begin with, where another trained model is put into this one."""
        return spec, None

    def _facts(self) -> dict[str, Any]:
        return {}

    def _open(self, run: runs.Run) -> None:
        self.run_ = run

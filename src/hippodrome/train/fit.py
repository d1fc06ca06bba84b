"""``fit``: trains a model for a budget, keeps the best weights, and resumes to the bit after a kill."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from hippodrome.models.base import Model
from hippodrome.train import checkpoint, low_rank, parallel
from hippodrome.train.batches import Collate
from hippodrome.train.evaluation import evaluate
from hippodrome.train.loop import FitResult, Loop, OnEvent
from hippodrome.train.settings import TrainSettings


def fit(
    model: Model,
    train: Dataset,
    valid: Dataset | None,
    collate: Collate,
    settings: TrainSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    on_event: OnEvent | None = None,
) -> FitResult:
    """Trains ``model`` in place and leaves the weights in it that were best on ``valid``.

    ``folder`` receives ``metrics.jsonl`` and ``checkpoints/``. ``resume`` continues from the newest whole
    checkpoint there, if there is one; with a budget in steps or tokens and the same settings the weights come
    out equal to the bit to those of a run that nothing interrupted. Without ``valid`` the last weights count
    as the best. ``on_event`` is called with a dict for every validation and a few times a second for steps.

    A loss that is not finite ends the run with the status "diverged". Ctrl-C and a request to terminate write
    a checkpoint first, then raise KeyboardInterrupt. The random state of the caller stays as it was.

    With ``settings.lora`` corrections of low rank train while the weights stay as they are: checkpoints hold
    these alone, ``adapter.safetensors`` the best of them, and the model is left with them merged in.

    Raises ValueError where the folder holds a run already and ``resume`` is not said, where the folder cannot
    be made, and where the device is not to be had; OSError where the folder can no longer be written.
    """
    folder = Path(folder)
    fabric = parallel.engine(settings)
    fabric.launch()
    if fabric.global_rank == 0:
        _prepare(folder, resume)
    fabric.barrier()
    before = checkpoint.random_states(fabric.device)
    try:
        with _interruptions() as interrupted, _watcher(settings, on_event, fabric.global_rank == 0) as watch:
            if settings.lora is not None:
                low_rank.insert(model, settings.lora, settings.seed)
            loop = Loop(fabric, model, train, valid, collate, settings, folder, watch, interrupted)
            fitted = loop.go(resume)
            return fitted if settings.lora is None else _merged(fitted, model, settings, folder)
    finally:
        checkpoint.restore_random(before, fabric.device)


def _merged(fitted: FitResult, model: Model, settings: TrainSettings, folder: Path) -> FitResult:
    """The corrections of the best weights in a file of their own, and the weights with them merged."""
    if fitted.weights and settings.lora is not None:
        low_rank.write(folder, model, settings.lora)
    low_rank.merge(model)
    state = model.state_dict() if fitted.weights else {}
    return fitted._replace(weights={name: w.detach().to("cpu", copy=True) for name, w in state.items()})


def _prepare(folder: Path, resume: bool) -> None:
    """Makes the folder, and clears away what a killed writer left."""
    place = folder / "checkpoints"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the run folder {folder} cannot be made ({error.strerror or error}). Name another"
        ) from error
    if not resume and checkpoint.listed(place):
        raise ValueError(f"{folder} holds a run already. Resume it, overwrite it, or name another folder")
    for left in place.glob(".*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def _watcher(settings: TrainSettings, on_event: OnEvent | None, main: bool) -> Iterator[OnEvent]:
    """Who hears of events: the caller, a progress bar where one is wanted, nobody in a helper process."""
    if main and settings.progress:
        from hippodrome.train.progress import bar

        shown: Any = bar(settings)
    else:
        shown = nullcontext(lambda event: None)
    with shown as show:

        def watch(event: dict[str, Any]) -> None:
            show(event)
            if main and on_event is not None:
                on_event(event)

        yield watch


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or request to terminate into an event, so that a step is never cut in two."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["FitResult", "evaluate", "fit"]

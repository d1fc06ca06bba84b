"""The training loop: steps, clock, validation, patience, checkpoints, in one process or in many."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hippodrome.models.base import Model
from hippodrome.train import checkpoint, low_rank, parallel
from hippodrome.train.batches import Collate, InOrder, Shuffled, loader, moved, renewed, rows
from hippodrome.train.evaluation import quotients, totals
from hippodrome.train.journal import Journal
from hippodrome.train.optimizer import adamw, set_rate
from hippodrome.train.schedule import factor
from hippodrome.train.settings import TrainSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric

EVENT_SECONDS = 0.25
OnEvent = Callable[[dict[str, Any]], None]
Status = Literal["running", "finished", "stopped early", "diverged"]


class FitResult(NamedTuple):
    """What came of a run: what was spent, the best validation and its step, and the journal's records.

    ``seconds`` are of training alone. ``message`` is a sentence where the run did not simply finish.
    ``weights`` are the best ones, whole and on the CPU, by their names in the model; empty where the run
    diverged before it had any, and in all processes but the first.
    """

    steps: int
    tokens: int
    seconds: float
    best: dict[str, float]
    best_step: int
    history: list[dict[str, Any]]
    status: Status
    message: str
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Where a run stands: all that a checkpoint holds beside tensors."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rows: int = 0
    validations: int = 0
    stale: int = 0
    window: float = 0.0
    window_steps: int = 0
    status: Status = "running"
    message: str = ""
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0


class Objective(nn.Module):
    """The model behind one ``forward``, so that wrappers for several processes see every call."""

    def __init__(self, model: Model, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        # The loss alone: metrics count things in Python, and their time is not on the clock.
        self.loss: Callable[[Any], Tensor] = torch.compile(model.loss) if compiled else model.loss

    def forward(self, batch: Any, what: Literal["loss", "metrics"]) -> Any:
        """The loss to train on, or the metrics."""
        return self.loss(batch) if what == "loss" else self.model.metrics(batch)


class Loop:
    """One run from its first step, or from a checkpoint, to its end."""

    def __init__(
        self,
        fabric: "Fabric",
        model: Model,
        train: Dataset,
        valid: Dataset | None,
        collate: Collate,
        settings: TrainSettings,
        folder: Path,
        on_event: OnEvent,
        interrupted: threading.Event,
    ) -> None:
        self.fabric, self.model, self.settings, self.folder = fabric, model, settings, folder
        self.train, self.collate, self.interrupted = train, collate, interrupted
        self.valid = valid if valid is not None and rows(valid) else None
        self.main = fabric.global_rank == 0
        self.on_event = on_event
        self.share = parallel.share(fabric)
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] = {}
        random.seed(settings.seed + self.share.rank)
        np.random.seed((settings.seed + self.share.rank) % 2**32)
        torch.manual_seed(settings.seed + self.share.rank)
        self.objective = Objective(model, settings.compile)
        # With corrections of low rank the model itself stays as it is: checkpoints need not hold it.
        self.left_out = set() if settings.lora is None else low_rank.frozen(self.objective)
        self.module = fabric.setup_module(self.objective)
        self.optimizer = adamw(model, settings.lr, settings.weight_decay, settings.betas)
        self.stepper: Any = fabric.setup_optimizers(self.optimizer)
        # In float64 the sum is exact, so that the journal does not depend on when it was drained.
        wide = torch.float32 if fabric.device.type == "mps" else torch.float64
        self.window = torch.zeros((), dtype=wide, device=fabric.device)
        self.event_at = self.checkpoint_at = time.monotonic()

    def go(self, resume: bool) -> FitResult:
        """Trains to the end of the budget, to an early stop, or to a loss that is not finite."""
        if resume:
            self._restore()
        self.journal = Journal(self.folder / "metrics.jsonl" if self.main else None, self.progress.steps)
        p = self.progress
        try:
            if p.status == "running":
                self._steps()
                if self.valid is None and p.status == "finished":
                    self.best_weights = self._weights()
                    p.best_step = p.steps
                self._save()
        finally:
            self.journal.close()
        if parallel.agree(self.fabric, len(self.best_weights))[0]:
            self._load(self.fabric.broadcast(self.best_weights))
        weights = {name.removeprefix("model."): tensor for name, tensor in self.best_weights.items()}
        return FitResult(
            p.steps,
            p.tokens,
            p.seconds,
            p.best,
            p.best_step,
            self.journal.records,
            p.status,
            p.message,
            weights,
        )

    def _steps(self) -> None:
        s, p = self.settings, self.progress
        new = renewed(self.train)
        order = Shuffled(rows(self.train), s.batch_size, s.seed, p.rows, self.share, new)
        batches = iter(loader(self.train, order, self.collate, s.workers, self.fabric.device.type == "cuda"))
        self._warm_up()
        self.module.train()
        spent = s.budget.fraction(p.steps, p.tokens, p.seconds)
        while p.status == "running":
            started = time.perf_counter()
            set_rate(self.optimizer, s.lr, factor(spent, s.warmup, s.final_lr))
            tokens = self._step(batches)
            now = time.monotonic()
            logs = p.window_steps == s.log_every
            shows = self.main and now - self.event_at > EVENT_SECONDS
            if logs or shows:
                self._drain()
            p.seconds += time.perf_counter() - started
            due = now - self.checkpoint_at > s.checkpoint_seconds
            due = due or (s.checkpoint_steps is not None and p.steps % s.checkpoint_steps == 0)
            counted, seconds, broken, saves, stop = parallel.agree(
                self.fabric,
                tokens,
                p.seconds * self.main,
                not math.isfinite(p.window),
                due and self.main,
                self.interrupted.is_set(),
            )
            p.tokens, p.seconds = p.tokens + int(counted), seconds
            spent = s.budget.fraction(p.steps, p.tokens, p.seconds)
            if logs or shows:
                self._report("step", spent, shows, logs)
            self._conclude(spent, bool(broken))
            if p.status == "running" and (saves or stop):
                self._save()
            if stop:
                raise KeyboardInterrupt(f"stopped after step {p.steps}; resume continues from there")

    def _step(self, batches: Iterator[Any]) -> int:
        """One optimizer step; returns the tokens of this process."""
        s, p, tokens = self.settings, self.progress, 0
        for i in range(s.accumulate):
            batch = moved(next(batches), self.fabric.device)
            tokens += self.model.tokens(batch)
            alone = i < s.accumulate - 1 and self.share.world > 1
            with self.fabric.no_backward_sync(self.module) if alone else nullcontext():
                loss = self.module(batch, "loss") / s.accumulate
                self.fabric.backward(loss)
            self.window += loss.detach()
        if s.clip is not None:
            self.fabric.clip_gradients(self.module, self.stepper, max_norm=s.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        p.steps, p.window_steps = p.steps + 1, p.window_steps + 1
        p.rows += s.batch_size * s.accumulate * self.share.world
        return tokens

    def _conclude(self, spent: float, broken: bool) -> None:
        """After a step: whether to validate, and whether this was the end."""
        s, p = self.settings, self.progress
        if spent >= 1 or int(spent * s.validations) > p.validations:
            self._drain()
            broken = parallel.agree(self.fabric, broken or not math.isfinite(p.window))[0] > 0
            p.validations = int(min(spent, 1.0) * s.validations)
            if self.valid is not None and not broken:
                self._validate(self.valid, spent)
        if broken:
            p.status = "diverged"
            p.message = f"the loss was not finite by step {p.steps}; lower the learning rate (it is {s.lr:g})"
        elif spent >= 1:
            p.status = "finished"

    def _drain(self) -> None:
        """Takes the summed loss off the device, which waits for it; the wait is on the clock."""
        started = time.perf_counter()
        self.progress.window += float(self.window)
        self.window.zero_()
        self.progress.seconds += time.perf_counter() - started

    def _warm_up(self) -> None:
        """One forward and backward pass that is thrown away, so that compilation is not on the clock."""
        before = checkpoint.random_states(self.fabric.device)
        self.module.train()
        items = [self.train[i % rows(self.train)] for i in range(self.settings.batch_size)]
        self.fabric.backward(self.module(moved(self.collate(items), self.fabric.device), "loss"))
        self.stepper.zero_grad()
        checkpoint.restore_random(before, self.fabric.device)

    def _validate(self, valid: Dataset, spent: float) -> None:
        """Metrics on the validation set; the best weights so far; patience."""
        s, p = self.settings, self.progress
        self.module.eval()
        order = InOrder(rows(valid), s.batch_size, s.valid_batches, self.share)
        batches = loader(valid, order, self.collate, s.workers, False)
        with torch.no_grad():
            mine = totals(lambda b: self.module(b, "metrics"), batches, order.real, self.fabric.device)
        self.module.train()
        sums: dict[str, tuple[float, int]] = {}
        for part in parallel.gather(self.fabric, mine):
            for name, (total, count) in part.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = (before[0] + total, before[1] + count)
        found = quotients(sums)
        metric, better, then = self.model.objective
        sign = 1 if better == "higher" else -1
        gain = sign * found[metric] - sign * p.best.get(metric, -sign * math.inf)
        if gain > 0 or (gain == 0 and then is not None and found[then] < p.best[then]):
            p.best, p.best_step, p.stale = found, p.steps, 0
            self.best_weights = self._weights()
        else:
            p.stale += 1
        self._report("validation", spent, True, True, found)
        if s.patience is not None and p.stale >= s.patience and spent < 1:
            p.status = "stopped early"
            p.message = f"stopped at step {p.steps}: {p.stale} validations brought no gain in {metric}"

    def _report(
        self, kind: str, spent: float, shows: bool, logs: bool, metrics: dict[str, float] | None = None
    ) -> None:
        """A record for the journal, and an event for who watches."""
        p = self.progress
        record: dict[str, Any] = {
            "event": kind,
            "step": p.steps,
            "tokens": p.tokens,
            "seconds": round(p.seconds, 4),
        }
        if kind == "step":
            record["loss"] = p.window / p.window_steps
            record["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        record |= metrics or {}
        if logs:
            self.journal.add(record)
        if logs and kind == "step":
            p.window, p.window_steps = 0.0, 0
        if shows:
            self.event_at = time.monotonic()
            self.on_event({**record, "fraction": min(spent, 1.0)})

    def _weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the model."""
        found = parallel.whole_weights(self.fabric, self.objective)
        return {name: w for name, w in found.items() if name not in self.left_out}

    def _load(self, weights: dict[str, Tensor]) -> None:
        """Puts back what ``_weights`` gave."""
        held = self.objective.state_dict() if self.left_out else {}
        parallel.load_weights(self.fabric, self.objective, {**held, **weights})

    def _low_rank(self) -> dict[str, Any] | None:
        lora = self.settings.lora
        return None if lora is None else lora.model_dump(mode="json")

    def _save(self) -> None:
        """Writes a checkpoint; every process takes part, the first one writes."""
        p = self.progress
        self._drain()
        states = parallel.gather(self.fabric, checkpoint.random_states(self.fabric.device))
        weights = self._weights()
        optimizer = parallel.whole_optimizer(self.fabric, self.objective, self.optimizer)
        if self.main:
            state = {
                "progress": asdict(p),
                "weights": weights,
                "optimizer": optimizer,
                "precision": self.fabric.strategy.precision.state_dict(),
                "best_weights": None if p.best_step == p.steps else self.best_weights,
                "random": states,
                "low_rank": self._low_rank(),
            }
            checkpoint.write(self.folder / "checkpoints", p.steps, state)
        self.fabric.barrier()
        self.checkpoint_at = time.monotonic()

    def _restore(self) -> None:
        """Puts everything back to the newest whole checkpoint; without one the run starts afresh."""
        path = checkpoint.latest(self.folder / "checkpoints") if self.main else None
        path = self.fabric.broadcast(path)
        if path is None:
            return
        state = checkpoint.read(path)
        if len(state["random"]) != self.share.world:
            raise ValueError(
                f"{path} is of {len(state['random'])} processes and this run has {self.share.world}; "
                f"resume with as many"
            )
        if state.get("low_rank") != self._low_rank():
            raise ValueError(
                f"{path} is of a run with other corrections of low rank ({state.get('low_rank')}) than this "
                f"one ({self._low_rank()}); resume with the same --lora and -s lora options"
            )
        p = self.progress = Progress(**state["progress"])
        self._load(state["weights"])
        parallel.load_optimizer(self.fabric, self.objective, self.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.main:
            self.best_weights = state["weights"] if state["best_weights"] is None else state["best_weights"]
        spent = self.settings.budget.fraction(p.steps, p.tokens, p.seconds)
        if p.status == "finished" and spent < 1:  # the budget was raised since
            p.status, p.validations = "running", int(spent * self.settings.validations)
        checkpoint.restore_random(state["random"][self.share.rank], self.fabric.device)

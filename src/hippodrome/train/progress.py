"""A progress bar for one run, fed by its events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hippodrome.train.settings import TrainSettings


@contextmanager
def bar(settings: TrainSettings) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar over the budget on standard error: step, loss, tokens a second, and the last validation."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as display:
        task = display.add_task(f"training for {settings.budget}", total=1.0)
        validated = ""

        def show(event: dict[str, Any]) -> None:
            nonlocal validated
            if event["event"] == "validation":
                known = ("event", "step", "tokens", "seconds", "fraction")
                values = [f"{name} {value:.4g}" for name, value in event.items() if name not in known]
                validated = f" | valid {', '.join(values)}"
                display.update(task, completed=event["fraction"])
                return
            rate = event["tokens"] / max(event["seconds"], 1e-9)
            text = f"step {event['step']} loss {event['loss']:.4f} {rate:,.0f} tok/s{validated}"
            display.update(task, completed=event["fraction"], description=text)

        yield show

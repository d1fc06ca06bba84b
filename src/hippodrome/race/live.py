"""The live table of a race: a row a contender, redrawn while it runs; plain lines where nobody watches."""

import time
from typing import Any

from hippodrome.race.plan import RacePlan
from hippodrome.race.verdict import count, duration, quality, unit


class LiveTable:
    """Hears the events of a race and shows them on standard error.

    A context manager: ``with LiveTable(plan, metric) as show: race(..., on_event=show)``.
    """

    def __init__(self, plan: RacePlan, metric: str, better: str = "lower", console: Any = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False)
        self.metric, self.better = metric, better
        self.rows: dict[str, dict[str, Any]] = {e.name: {} for e in plan.entries}
        self.live: Any = None
        self.shown = 0.0

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            from rich.live import Live

            self.live = Live(self.table(), console=self.console, auto_refresh=False, transient=False)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.update(self.table(), refresh=True)
            self.live.__exit__(*error)
            self.live = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event in; the screen follows a few times a second."""
        row = self.rows.get(event.get("contender", ""))
        if row is None:
            if event.get("text"):
                self.console.print(event["text"], soft_wrap=True, markup=False)
            return
        self._note(row, event)
        if self.live is None:
            line = self._line(event)
            if line:
                self.console.print(line, soft_wrap=True, markup=False)
            return
        now = time.monotonic()
        if event["event"] != "step" or now - self.shown > 0.2:
            self.shown = now
            self.live.update(self.table(), refresh=True)

    def _note(self, row: dict[str, Any], event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "pretraining":
            row |= {"state": "running", "run": f"pretraining, seed {event['seed']}"}
        if kind == "start":
            row |= {"state": "running", "run": f"lr {event['lr']:g}, seed {event['seed']}", "fraction": 0.0}
            return
        for key in ("step", "loss", "fraction"):
            if event.get(key) is not None:
                row[key] = event[key]
        if event.get("seconds") and event.get("tokens"):
            row["rate"] = event["tokens"] / event["seconds"]
        fraction = event.get("fraction")
        if fraction:
            row["left"] = event["seconds"] * (1 - fraction) / fraction
        value = event.get({"end": "valid", "validation": self.metric}.get(kind, ""))
        if value is not None:
            row["valid"] = value
            pick = min if self.better == "lower" else max
            row["best"] = pick(value, row.get("best", value))
        if kind == "end":
            row |= {"state": event["status"], "left": 0.0}

    def table(self) -> Any:
        """The rows as they stand."""
        from rich.table import Table

        shown = Table(box=None, pad_edge=False, header_style="bold")
        score = f"valid {unit(self.metric)}"
        heads = ("contender", "run", "step", "tokens/s", "train loss", score, "best", "left")
        for i, head in enumerate(heads):
            shown.add_column(head, justify="left" if i < 2 else "right", no_wrap=True)
        for name, row in self.rows.items():
            state = row.get("state", "waiting")
            shown.add_row(
                name,
                row.get("run", "") if state == "running" else state,
                f"{row['step']:,}" if "step" in row else "",
                count(row["rate"]) if "rate" in row else "",
                f"{row['loss']:.4f}" if "loss" in row else "",
                quality(row["valid"], self.metric) if "valid" in row else "",
                quality(row["best"], self.metric) if "best" in row else "",
                duration(row["left"]) if row.get("left") else "",
                style={"running": "bold", "diverged": "red", "failed": "red", "waiting": "dim"}.get(state),
            )
        return shown

    def _line(self, event: dict[str, Any]) -> str:
        head = f"{event['contender']} (lr {event['lr']:g}, seed {event['seed']})"
        if event["event"] == "start":
            return f"{head} starts"
        if event["event"] == "validation":
            percent = f"{100 * event.get('fraction', 0):.0f} %"
            value = event.get(self.metric)
            shown = "-" if value is None else quality(value, self.metric)
            return f"{head} {percent}, step {event['step']:,}: {unit(self.metric)} {shown}"
        if event["event"] == "pretraining":
            loss = f", step {event['step']:,}: loss {event['loss']:.4g}" if "loss" in event else ""
            return f"{head} pretraining {100 * event['fraction']:.0f} %{loss}"
        if event["event"] == "end":
            value = event.get("valid")
            shown = "" if value is None else f", {unit(self.metric)} {quality(value, self.metric)}"
            note = f": {event['note']}" if event.get("note") else ""
            return f"{head} {event['status']}{shown}{note}"
        return ""

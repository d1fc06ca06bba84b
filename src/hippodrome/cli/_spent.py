"""Where a trained model spent its attention on sequences of its own test data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hippodrome.cli._data import task_of

if TYPE_CHECKING:
    from hippodrome.analyze.charts import Chart
    from hippodrome.data import Task
    from hippodrome.runs import Run

SAMPLE = 64
"""Test sequences over which the shares are taken."""


class Look(NamedTuple):
    """Shares for each layer, and the map of one sequence."""

    facts: dict[str, Any]
    chart: "Chart"


class Sequences(NamedTuple):
    """The test data of a run, and the number of the sequence that is looked at, from 0."""

    run: "Run"
    task: "Task"
    number: int

    def batch(self, rows: list[int]) -> Any:
        """These sequences as the model takes them."""
        from hippodrome.train.batches import moved

        test: Any = self.task.test
        device = next(self.run.model.parameters()).device
        return moved(self.task.collate([test[i] for i in rows]), device)

    def name(self, token: int) -> str:
        """A token as text; nothing where there is no tokenizer."""
        tokenizer = self.run.tokenizer
        return tokenizer.decode([token]).strip() or f"#{token}" if tokenizer else ""


def sequences(folder: str, device: str, number: int) -> Sequences:
    """The test data of the run in a folder, to look at sequence ``number``, counted from 1.

    Raises:
        ValueError: the folder is no run, or there is no such sequence.
    """
    from hippodrome import checkpoints

    if not Path(folder).is_dir():
        raise ValueError(f"--on takes a sequence of a run's test data; {folder!r} is no run folder")
    run = checkpoints.open_model(folder, device)
    task = task_of(run, None, {})
    count = len(task.test)  # type: ignore[arg-type]
    if number > count:
        raise ValueError(f"--on counts from 1 to {count}, the test sequences of this run; got {number}")
    return Sequences(run, task, number - 1)


def look(given: Sequences) -> Look:
    """The map of one sequence, and the shares over the first of them.

    Raises:
        ValueError: no layer chooses what it attends to.
    """
    from hippodrome.analyze import spent

    run, name = given.run, given.name

    def on(rows: list[int]) -> tuple[list[spent.Spent], Any, list[int]]:
        batch = given.batch(rows)
        found = spent.attention_spent(run.model, lambda: run.model.loss(batch))
        whole = [found[0].active.shape[1]] * len(rows)
        lengths = getattr(batch, "lengths", None)
        tokens = batch[0].cpu().numpy() if run.tokenizer is not None else None
        return found, tokens, whole if lengths is None else lengths.tolist()

    rows = list(range(min(SAMPLE, len(given.task.test))))  # type: ignore[arg-type]
    found, tokens, lengths = on(rows)
    facts = {}
    for layer in found:
        told: dict[str, Any] = {"share": spent.share(layer, lengths), "sequences": len(rows)}
        if tokens is not None:
            shares = spent.share_by_token(layer, tokens, lengths)
            told["by_token"] = {name(i): {"share": s, "count": n} for i, (s, n) in shares.items()}
        facts[layer.layer] = told
    found, tokens, lengths = on([given.number])
    for layer in found:
        facts[layer.layer]["share_of_this"] = spent.share(layer, lengths)
    names = [] if tokens is None else [name(int(i)) for i in tokens[0, : lengths[0]]]
    return Look(facts, spent.spent_map(found, lengths[0], names))


def shown(facts: dict[str, Any]) -> dict[str, str]:
    """The same as lines of a table."""
    lines = {}
    for layer, told in facts.items():
        text = f"{100 * told['share']:.1f} % of tokens ({100 * told['share_of_this']:.1f} % of this sequence)"
        often = [(k, v) for k, v in told.get("by_token", {}).items() if v["count"] >= 20]
        if often:
            often.sort(key=lambda item: -item[1]["share"])
            most = ", ".join(f"{k} {100 * v['share']:.0f} %" for k, v in often[:5])
            least = ", ".join(f"{k} {100 * v['share']:.0f} %" for k, v in often[-3:])
            text += f"; most on {most}; least on {least}"
        lines[f"attention of {layer}"] = text
    return lines

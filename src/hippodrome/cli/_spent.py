"""Where a trained model spent its attention on sequences of its own test data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hippodrome.cli._data import task_of

if TYPE_CHECKING:
    from hippodrome.analyze.charts import Chart

SAMPLE = 64
"""Test sequences over which the shares are taken."""


class Look(NamedTuple):
    """Shares for each layer, and the map of one sequence."""

    facts: dict[str, Any]
    chart: "Chart"


def look(folder: str, device: str, number: int) -> Look:
    """The map of test sequence ``number``, counted from 1, and the shares over the first of them.

    Raises:
        ValueError: the folder is no run, there is no such sequence, or no layer chooses what it attends to.
    """
    from hippodrome import runs
    from hippodrome.analyze import spent

    if not Path(folder).is_dir():
        raise ValueError(f"--on takes a sequence of a run's test data; {folder!r} is no run folder")
    run = runs.load(folder, device)
    task = task_of(run, None, {})
    test: Any = task.test
    if number > len(test):
        raise ValueError(f"--on counts from 1 to {len(test)}, the test sequences of this run; got {number}")

    def on(rows: list[int]) -> tuple[list[spent.Spent], Any, list[int]]:
        from hippodrome.train.batches import moved

        batch = moved(task.collate([test[i] for i in rows]), next(run.model.parameters()).device)
        found = spent.attention_spent(run.model, lambda: run.model.loss(batch))
        whole = [found[0].active.shape[1]] * len(rows)
        lengths = getattr(batch, "lengths", None)
        tokens = batch[0].cpu().numpy() if run.tokenizer is not None else None
        return found, tokens, whole if lengths is None else lengths.tolist()

    def name(token: int) -> str:
        return run.tokenizer.decode([token]).strip() or f"#{token}" if run.tokenizer else ""

    rows = list(range(min(SAMPLE, len(test))))
    found, tokens, lengths = on(rows)
    facts = {}
    for layer in found:
        told: dict[str, Any] = {"share": spent.share(layer, lengths), "sequences": len(rows)}
        if tokens is not None:
            shares = spent.share_by_token(layer, tokens, lengths)
            told["by_token"] = {name(i): {"share": s, "count": n} for i, (s, n) in shares.items()}
        facts[layer.layer] = told
    found, tokens, lengths = on([number - 1])
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

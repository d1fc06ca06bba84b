"""Where attention was spent: the tokens of an input that each layer with a router activated, and a map."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hippodrome.analyze.charts import Chart
from hippodrome.analyze.figures import COLOURS, axes
from hippodrome.mixers.seqboat import SeqBoat

WRAP = 64
"""Tokens in a line of the map where they are named."""
NAMED = 512
"""A longer input is drawn in one line without names."""


class Spent(NamedTuple):
    """One layer on a batch of rows."""

    layer: str
    """The layer's name in the model."""
    active: np.ndarray
    """(b, t): whether attention was spent on a token."""
    probability: np.ndarray
    """(b, t): the router's probability for that."""


def attention_spent(model: nn.Module, run: Callable[[], object]) -> list[Spent]:
    """Which tokens each SeqBoat layer inside ``model`` activates while ``run()`` runs the model once.

    In a layer of two directions the reversed branch is told in the order of the input.

    Raises:
        ValueError: no layer inside chooses what it attends to.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SeqBoat)}
    if not layers:
        raise ValueError(
            "a map of where attention was spent needs a model with a layer that chooses (seqboat); "
            "this one has none"
        )
    found: list[Spent] = []

    def watch(name: str) -> Callable[..., None]:
        def seen(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            state = given[1] if len(given) > 1 else named.get("state")
            active, probability = module.activation(given[0], state, resets=named.get("resets"))
            if name.rsplit(".", 1)[-1] == "back":
                active, probability = active.flip(1), probability.flip(1)
            found.append(Spent(name, active.cpu().numpy(), probability.float().cpu().numpy()))

        return seen

    hooks = [m.register_forward_pre_hook(watch(name), with_kwargs=True) for name, m in layers.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def share(spent: Spent, lengths: Sequence[int]) -> float:
    """The share of tokens that a layer activated, among the first ``lengths`` of each row."""
    valid = np.arange(spent.active.shape[1]) < np.asarray(lengths)[:, None]
    return float(spent.active[valid].mean())


def share_by_token(spent: Spent, tokens: np.ndarray, lengths: Sequence[int]) -> dict[int, tuple[float, int]]:
    """For each token id that occurs in (b, t): the share of its occurrences activated, and their number."""
    valid = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]
    ids, active = tokens[valid], spent.active[valid]
    return {int(i): (float(active[ids == i].mean()), int((ids == i).sum())) for i in np.unique(ids)}


def spent_map(layers: Sequence[Spent], length: int, names: Sequence[str] = (), row: int = 0) -> Chart:
    """The map of one row: a line of cells for each layer, filled where attention was spent.

    A cell is the darker, the surer the router was. ``names`` of the tokens stand below where there are not
    too many.
    """
    named = bool(names) and length <= NAMED
    wide = min(WRAP, length) if named else length
    lines = -(-length // wide)

    def draw() -> Any:
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Rectangle

        height = 0.24 * len(layers) + (0.55 if named else 0.35)
        figure, grid = axes(9.5, lines * height + 0.6, lines, 1)
        for line in range(lines):
            ax = grid[line][0]
            first, last = line * wide, min(length, (line + 1) * wide)
            for i, spent in enumerate(layers):
                for t in np.nonzero(spent.active[row, first:last])[0]:
                    sure = 2 * float(spent.probability[row, first + t]) - 1
                    shade = (*to_rgb(COLOURS[0]), 0.3 + 0.7 * max(0.0, sure))
                    ax.add_patch(Rectangle((t - 0.5, i - 0.5), 1, 1, facecolor=shade, linewidth=0))
            ax.set_yticks(range(len(layers)), [str(i + 1) for i in range(len(layers))])
            ax.set(xlim=(-0.5, wide - 0.5), ylim=(len(layers) - 0.5, -0.5), ylabel="layer")
            ax.grid(visible=False)
            if named:
                here = [names[t] if len(names[t]) < 7 else names[t][:6] + "…" for t in range(first, last)]
                ax.set_xticks(range(last - first), here, rotation=90, fontsize=6.5)
                ax.tick_params(axis="x", length=0)
        title = f"Where attention was spent ({_shares(layers, length, row)})"
        grid[0][0].set_title(title)
        if not named:
            grid[-1][0].set_xlabel("token")
        return figure

    note = "Filled where the router of a layer activates its attention on a token, darker where it is surer."
    return Chart("attention-spent", "Where attention was spent", draw, note)


def _shares(layers: Sequence[Spent], length: int, row: int) -> str:
    """layer 1: 12 %, layer 2: 30 % of tokens."""
    shares = (100 * float(spent.active[row, :length].mean()) for spent in layers)
    return ", ".join(f"layer {i + 1}: {s:.0f} %" for i, s in enumerate(shares)) + f" of {length} tokens"

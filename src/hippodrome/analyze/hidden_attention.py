"""What the layers of a model read from where: the hidden attention of each on one input, as maps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hippodrome.analyze.charts import Chart
from hippodrome.analyze.figures import axes
from hippodrome.backbones._pieces import backwards
from hippodrome.backbones.bimamba import BiMamba
from hippodrome.mixers.base import Mixer

NAMED = 64
"""Up to so many tokens are named at the edges of a map."""


class Seen(NamedTuple):
    """A mixer inside a model, what it was handed, and whether it read it backwards; a direction of a layer
    that reads both ways, where each has a matrix of its own."""

    layer: str
    mixer: Mixer
    x: Tensor
    resets: Tensor | None
    backwards: bool
    modality: Tensor | None = None


class Map(NamedTuple):
    """One layer on one row: ``weights`` (h, t, t), row i what token i reads, in the order of the input."""

    layer: str
    weights: np.ndarray
    backwards: bool = False

    @property
    def mean(self) -> np.ndarray:
        """(t, t): the mean of magnitudes over heads, each row scaled to a sum of one where it is not zero."""
        size = np.abs(self.weights).mean(0)
        total = size.sum(-1, keepdims=True)
        return size / np.where(total > 0, total, 1.0)

    def reach(self) -> float:
        """Tokens back to what is read, weighted by how much of it is, on average over tokens."""
        t = len(self.weights[0])
        distance = np.abs(np.arange(t)[:, None] - np.arange(t))
        return float((self.mean * distance).sum(-1).mean())


def inputs_of_mixers(model: nn.Module, run: Callable[[], object]) -> list[Seen]:
    """What every mixer inside ``model`` that makes gates from tokens is handed while ``run()`` runs it."""
    found: list[Seen] = []
    with _watched(model, found), torch.no_grad():
        run()
    return found


def hidden_attention(seen: Seen, row: int = 0, length: int | None = None) -> Map:
    """The map of one layer on one of its rows, its first ``length`` tokens.

    Raises:
        ValueError: the layer has none.
    """
    # What reads the end of the row reads padding too, which is cut off afterwards.
    read = length if seen.mixer.causal and not seen.backwards else None
    x, resets, modality = (
        None if one is None else one[row : row + 1, :read] for one in (seen.x, seen.resets, seen.modality)
    )
    told: Any = {} if modality is None else {"modality": modality}
    with torch.no_grad():
        weights = seen.mixer.hidden_attention(x, resets, **told)[0]  # type: ignore[arg-type]
    weights = weights.flip(-1, -2) if seen.backwards else weights
    return Map(seen.layer, weights[:, :length, :length].float().cpu().numpy(), seen.backwards)


def attention_maps(maps: Sequence[Map], names: Sequence[str] = ()) -> Chart:
    """A map for each layer, rows what reads, columns what is read; darker is more."""
    columns = min(len(maps), 4)
    rows = -(-len(maps) // columns)
    t = len(maps[0].mean)
    named = bool(names) and t <= NAMED

    def draw() -> Any:
        figure, grid = axes(2.6 * columns + 0.4, 2.7 * rows + 0.3, rows, columns)
        cells = [ax for line in grid for ax in line]
        for i, (ax, one) in enumerate(zip(cells, maps, strict=False)):
            mean = one.mean
            top = np.quantile(mean[mean > 0], 0.99) if (mean > 0).any() else 1.0
            ax.imshow(mean, cmap="Greys", vmin=0, vmax=top, interpolation="nearest", aspect="equal")
            back = ", reversed" if one.backwards else ""
            ax.set_title(f"layer {i + 1}{back}: {one.reach():.1f} tokens away", fontsize=8.5)
            ax.grid(visible=False)
            if named:
                short = [name if len(name) < 7 else name[:6] + "…" for name in names]
                ax.set_xticks(range(t), short, rotation=90, fontsize=4.5)
                ax.set_yticks(range(t), short, fontsize=4.5)
                ax.tick_params(length=0)
        for ax in cells[len(maps) :]:
            ax.set_visible(False)
        return figure

    note = (
        "Row: the token that reads. Column: the token that is read. Means of magnitudes over heads or "
        "channels, each row scaled to a sum of one; gates, skips and output maps around the recurrence are "
        "left out."
    )
    return Chart("hidden-attention", "Hidden attention of each layer", draw, note)


def reads(mixer: Mixer) -> bool:
    """Whether a mixer has a hidden attention of its own to show."""
    return type(mixer).hidden_attention is not Mixer.hidden_attention


@contextmanager
def _watched(model: nn.Module, found: list[Seen]) -> Iterator[None]:
    def watch(name: str) -> Callable[..., None]:
        def seen(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            x, resets = given[0].detach(), named.get("resets")
            if isinstance(module, BiMamba):
                marks, _ = backwards(x, resets, None)
                found.append(Seen(f"{name}.mamba_fwd", module.mamba_fwd, x, resets, False))
                found.append(Seen(f"{name}.mamba_rev", module.mamba_rev, x.flip(1), marks, True))
                return
            # A layer that runs more than once has a name for each time.
            times = sum(one.layer.split(" ")[0] == name for one in found)
            label = f"{name} (use {times + 1})" if times else name
            reversed_ = name.rsplit(".", 1)[-1] == "back"
            found.append(Seen(label, module, x, resets, reversed_, named.get("modality")))

        return seen

    mixers = {name: m for name, m in model.named_modules() if isinstance(m, Mixer)}
    both = [m for m in mixers.values() if isinstance(m, BiMamba)]
    # Of two directions with shared maps neither is called as a module, and of others both are.
    inside = {id(one) for m in both for one in (m.mamba_fwd, m.mamba_rev)}
    layers = {
        name: m for name, m in mixers.items() if isinstance(m, BiMamba) or (reads(m) and id(m) not in inside)
    }
    hooks = [m.register_forward_pre_hook(watch(name), with_kwargs=True) for name, m in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

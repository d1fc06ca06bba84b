"""How long each part of a layer's state remembers, gates as inputs make them: local and global channels."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hippodrome.analyze.charts import Chart
from hippodrome.analyze.figures import COLOURS, DASHES, axes
from hippodrome.mixers.base import Mixer

GLOBAL = 0.05
"""A channel is global where more than this of its state is left after the window."""


class ChannelMemory(NamedTuple):
    """One layer on a batch of inputs of one length.

    ``tokens``: for each part of the state, the tokens after which 1 / e of it is left, on average over the
    window and the rows, ascending; infinite where nothing fades. ``left``: the share of a part that is left
    after the whole window, in the same order. ``window``: tokens.
    """

    layer: str
    tokens: np.ndarray
    left: np.ndarray
    window: int

    @property
    def global_share(self) -> float:
        """The share of parts that are global: more than ``GLOBAL`` of them is left after the window."""
        return float((self.left > GLOBAL).mean())


def channel_memory(
    mixer: Mixer, x: Tensor, layer: str = "", length: int | None = None, modality: Tensor | None = None
) -> ChannelMemory:
    """The memory of every part of a mixer's state on inputs (b, t, d), by the decays that they make.

    The memory of a channel over a window is exp(sum of A dt) (Ye, Fu et al. 2025, "LongMamba: enhancing
    Mamba's long-context capabilities via training-free receptive field enlargement", arXiv 2504.16053); one
    with little left at the window it was trained on is local there, the others are global. Which is which
    depends on the window: state it with the number.

    Args:
        mixer: one whose decays are made from the tokens.
        x: its inputs.
        layer: its name.
        length: tokens to take of each row; None for all.
        modality: of each token, for a mixer that tells them apart.

    Raises:
        ValueError: the mixer's state does not decay so.
    """
    with torch.no_grad():
        told: Any = {} if modality is None else {"modality": modality[:, :length]}
        logs = mixer.log_decays(x[:, :length], **told).double()
    window = logs.shape[1]
    total = logs.sum(1).mean(0)
    total = total.sort().values
    lengths = torch.where(total < 0, -window / total, math.inf)
    return ChannelMemory(layer, lengths.cpu().numpy(), total.exp().cpu().numpy(), window)


def memory_chart(layers: list[ChannelMemory]) -> Chart:
    """Memory against the share of the state that remembers no longer, a line for each layer."""
    window = layers[0].window

    def draw() -> Any:
        figure, grid = axes(7.0, 4.2, 1, 1)
        ax = grid[0][0]
        for i, layer in enumerate(layers):
            share = (np.arange(len(layer.tokens)) + 1) / len(layer.tokens)
            shown = np.clip(layer.tokens, 1e-2, 1e7)
            back = ", reversed" if layer.layer.endswith((".back", ".mamba_rev")) else ""
            name = f"layer {i + 1}{back}: {100 * layer.global_share:.0f} % global"
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
            ax.plot(shown, share, label=name, **style)
        edge = window / math.log(1 / GLOBAL)
        ax.axvline(edge, color="0.5", linewidth=1, linestyle=(0, (1, 1.2)))
        ax.set_xscale("log")
        ax.set(xlabel="tokens until 1/e is left", ylabel="share of the state", ylim=(0, 1.02))
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        ax.set_title(f"Memory of the state over {window} tokens")
        return figure

    note = (
        f"Right of the dotted line {100 * GLOBAL:.0f} % of a part or more is left after {window} tokens: "
        "global channels."
    )
    return Chart("channel-memory", "Memory of each channel", draw, note)

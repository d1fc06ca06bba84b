"""A stack: blocks one after the other, and a last norm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hippodrome.backbones.block import Block
from hippodrome.layers.norm import build_norm
from hippodrome.layers.stacked_projection import StackedProjection
from hippodrome.mixers.base import ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class Stack(nn.Module):
    """Blocks in depth. Its state is the tuple of its mixers' states, first block first.

    The maps that write into the residual stream (``out_proj`` of a mixer, ``fc2`` of a perceptron) are
    divided by the square root of the number of residual branches at construction, so that the stream's size
    does not grow with depth (Radford et al. 2019, "Language models are unsupervised multitask learners",
    section 2.3). Those of blocks whose norms stand behind the residuals, which keep that size, stay as they
    are.

    Args:
        blocks: at least one, all of the same width. Hand each block to one stack only.
        norm: whether a norm of the last block's kind follows.
        recompute: keep only the blocks' inputs for the backward pass and run each block again there: less
            memory for about a third more work.

    Raises:
        ValueError: no blocks, blocks of different widths, or ``recompute`` of one that is not recomputable.
    """

    def __init__(self, blocks: list[Block], norm: bool = True, recompute: bool = False) -> None:
        super().__init__()
        widths = {block.d_model for block in blocks}
        if len(widths) != 1:
            raise ValueError(
                "A stack needs at least one block, all of one width; got "
                + (f"widths {sorted(widths)}." if widths else "none.")
            )
        inside = [module for block in blocks for module in block.modules()]
        once = {type(module).__name__ for module in inside if not getattr(module, "recomputable", True)}
        if recompute and once:
            raise ValueError(
                f"A stack with recompute runs its blocks twice, and {', '.join(sorted(once))} changes itself "
                "in training whenever it runs. Leave recompute off, or take other mixers."
            )
        self.d_model = blocks[0].d_model
        self.causal = all(block.causal for block in blocks)
        self.accepts_resets = all(block.accepts_resets for block in blocks)
        self.accepts_modality = any(block.accepts_modality for block in blocks)
        self.recompute = recompute
        self.blocks = nn.ModuleList(blocks)
        end = blocks[-1]
        last = (end.norm_kind, self.d_model, end.mixer.point_channels, end.norm_eps)
        self.norm = build_norm(*last) if norm else nn.Identity()
        growing = [block for block in blocks if not block.post_norm]
        writers = [getattr(block.mixer, "out_proj", None) for block in growing]
        writers += [block.mlp.fc2 for block in growing if block.mlp is not None]
        with torch.no_grad():
            for layer in writers:
                for one in layer if isinstance(layer, nn.ModuleList) else [layer]:
                    if isinstance(one, nn.Linear | StackedProjection):
                        one.weight /= len(writers) ** 0.5

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The states before the first token, one for each block."""
        return tuple(block.init_state(batch, max_length) for block in self._blocks())

    def reset_rows(self, state: tuple, rows: Tensor) -> tuple:
        """The states with the marked rows (b,) as before the first token."""
        pairs = zip(self._blocks(), self._states(state), strict=True)
        return tuple(block.reset_rows(inner, rows) for block, inner in pairs)

    def forward(
        self,
        x: Sequence,
        state: tuple | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, tuple]:
        """Many tokens: (b, t, d) to (b, t, d) and the states after them.

        ``modality`` (b, t) reaches the mixers that tell modalities apart.
        """
        after: list[Any] = []
        for block, inner in zip(self._blocks(), self._states(state), strict=True):
            if self.recompute and torch.is_grad_enabled():
                x, last = checkpoint(
                    block, x, inner, resets=resets, dt=dt, modality=modality, use_reentrant=False
                )
            else:
                x, last = block(x, inner, resets=resets, dt=dt, modality=modality)
            after.append(last)
        return self.norm(x), tuple(after)

    def step(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> tuple[Token, tuple]:
        """One token: (b, d) to (b, d) and the next states."""
        after: list[Any] = []
        for block, inner in zip(self._blocks(), self._states(state), strict=True):
            x_t, last = block.step(x_t, inner, dt_t=dt_t, modality_t=modality_t)
            after.append(last)
        return self.norm(x_t), tuple(after)

    def advance_(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> Token:
        """One token, overwriting the states, which the caller owns."""
        for block, inner in zip(self._blocks(), self._states(state), strict=True):
            x_t = block.advance_(x_t, inner, dt_t=dt_t, modality_t=modality_t)
        return self.norm(x_t)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        return [group for block in self._blocks() for group in block.parameter_groups()]

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _states(self, state: tuple | None) -> tuple:
        if state is None:
            return (None,) * len(self.blocks)
        if len(state) != len(self.blocks):
            raise ValueError(
                f"A stack of {len(self.blocks)} blocks takes a tuple of as many states; got {len(state)}. "
                "Take init_state, or the state that a forward of this stack returned."
            )
        return state

    @classmethod
    def example(cls) -> "Stack":
        """A small instance."""
        return cls([Block.example(), Block.example()])

"""RCPS: one stack over both strands of DNA, whose features turn with the reverse complement of the input."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.backbones._pieces import backwards
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps


class RCPS(nn.Module):
    """[x | w] of width 2 d to [stack(x) | turn(stack(turn(w)))], turn the reversal of tokens and of channels.

    Schiff, Kao, Gokaslan, Dao, Gu, Kuleshov 2024, "Caduceus: bi-directional equivariant long-range DNA
    sequence modeling", arXiv 2403.03234: the reverse-complement equivariant layers with shared parameters.
    There each mixer and each norm treats the halves so, with the residual stream between them; no layer mixes
    the halves, so that a whole stack of such layers is the stack itself over a batch twice as large.

    Turning the input turns the output. Where the second half of a token is what stands opposite, channels
    reversed, turning is the reverse complement: ``models.masked_language`` embeds so and reads so, which
    ``strands`` tells it. With ``resets`` each piece of a packed row turns in its own place. What reads the
    second strand begins at the end, so there is neither a state nor a step, whatever the mixers.

    Args:
        stack: of width d.
        mean: whether the features are halved, so that logits, which add up both strands, are their mean.
    """

    strands = 2
    causal = False

    def __init__(self, stack: Stack, mean: bool = False) -> None:
        super().__init__()
        self.stack, self.mean = stack, mean
        self.d_model: int = 2 * stack.d_model
        self.accepts_resets: bool = stack.accepts_resets
        self.accepts_modality: bool = stack.accepts_modality

    def init_state(self, batch: int, max_length: int | None = None) -> NoReturn:
        """Refused: the other strand is read from its end."""
        self._refuse()

    def step(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> NoReturn:
        """Refused: the other strand is read from its end."""
        self._refuse()

    def advance_(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> NoReturn:
        """Refused: the other strand is read from its end."""
        self._refuse()

    def reset_rows(self, state: Any, rows: Bool[Tensor, "b"]) -> NoReturn:
        """Refused: the other strand is read from its end."""
        self._refuse()

    def forward(
        self,
        x: Sequence,
        state: tuple | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence (b, t, 2 d); the state handed back is empty."""
        if state is not None:
            self._refuse()
        one, other = x.chunk(2, -1)
        marks, back = backwards(x, resets, dt)
        y, _ = self.stack(
            torch.cat([one, other.flip(1, 2)]),
            resets=_both(resets, marks),
            dt=_both(dt, back),
            modality=None if modality is None else torch.cat([modality, modality.flip(1)]),
        )
        one, other = y.chunk(2)
        y = torch.cat([one, other.flip(1, 2)], -1)
        return (y / 2 if self.mean else y), ()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the stack."""
        return self.stack.parameter_groups()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "RCPS reads the other strand from its end, so it has neither a state nor a step. Hand the whole "
            "sequence to forward, or take the stack alone."
        )

    @classmethod
    def example(cls) -> "RCPS":
        """A small instance."""
        return cls(Stack([Block(Bidirectional(MinGRU(4), MinGRU(4), "shared"))]))


def _both(
    x: Float[Tensor, "b t"] | Bool[Tensor, "b t"] | None,
    turned: Float[Tensor, "b t"] | Bool[Tensor, "b t"] | None,
) -> Tensor | None:
    return None if x is None or turned is None else torch.cat([x, turned])


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after a pattern ``rcps:bimamba``: a stack of half the width, for there are two strands.

    Raises:
        ValueError: more than one pattern, or an odd width.
    """
    if len(stacks) > 1:
        raise ValueError(f"rcps takes one pattern, that of both strands; got {len(stacks)}.")
    if d_model % 2:
        raise ValueError(
            f"rcps is as wide as two strands, so its width is even; got {d_model}. Take an even one."
        )
    return {"stack": stacks[0](d_model // 2, depth), **options}

"""A block: a mixer along time, then if wanted a perceptron, each inside a residual with a norm."""

from typing import Any

import torch
from torch import Tensor, nn

from hippodrome.layers.mlp import GatedMLP
from hippodrome.layers.norm import NormKind, build_norm
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)) (pre-norm residuals: Xiong et al. 2020, arXiv 2002.04745).

    With ``post_norm`` norm(x + mixer(x)), then norm(x + mlp(x)), as in Vaswani et al. 2017 (arXiv 1706.03762,
    section 3.1).

    Args:
        mixer: what mixes along time; the block's state is its state.
        mlp: what mixes channels of each token; None for a block of the mixer alone.
        norm: "rms", "rms1" (scales are 1 + a parameter), "layer" or "none".
        dropout: chance that an element of a branch is dropped in training.
        norm_eps: added to the mean squares of the norms.
        scale: of what each branch adds to the residual stream.
        post_norm: whether norms stand behind the residuals, and not in front of the branches.
    """

    def __init__(
        self,
        mixer: Mixer,
        mlp: GatedMLP | None = None,
        *,
        norm: NormKind = "rms",
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        scale: float = 1.0,
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.d_model = mixer.d_model
        self.causal = mixer.causal
        self.accepts_resets = mixer.accepts_resets
        self.accepts_modality = mixer.accepts_modality
        self.norm_kind, self.norm_eps = norm, norm_eps
        self.norm = build_norm(norm, mixer.d_model, mixer.point_channels, norm_eps)
        self.mixer = mixer
        self.mlp_norm = build_norm(norm, mixer.d_model, eps=norm_eps) if mlp is not None else None
        self.mlp = mlp
        self.scale, self.post_norm = scale, post_norm
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The mixer's state before the first token."""
        return self.mixer.init_state(batch, max_length)

    def reset_rows(self, state: tuple, rows: Tensor) -> tuple:
        """The state with the marked rows (b,) as before the first token."""
        return self.mixer.reset_rows(state, rows)

    def forward(
        self,
        x: Sequence,
        state: tuple | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, tuple]:
        """Many tokens: (b, t, d) to (b, t, d) and the mixer's state after them.

        ``modality`` (b, t) reaches a mixer that tells modalities apart.
        """
        told = self._told(modality=modality)
        y, state = self.mixer(self.heard(x), state, resets=resets, dt=dt, **told)
        return self.finish(x, y), state

    def step(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> tuple[Token, tuple]:
        """One token: (b, d) to (b, d) and the next state."""
        told = self._told(modality_t=modality_t)
        y_t, state = self.mixer.step(self.heard(x_t), state, dt_t=dt_t, **told)
        return self.finish(x_t, y_t), state

    def advance_(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> Token:
        """One token, overwriting a state that its caller owns."""
        told = self._told(modality_t=modality_t)
        y_t = self.mixer.advance_(self.heard(x_t), state, dt_t=dt_t, **told)
        return self.finish(x_t, y_t)

    def heard(self, x: Tensor) -> Tensor:
        """What the mixer reads of the block's input."""
        return x if self.post_norm else self.norm(x)

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's output from its input and the mixer's output: the residual, then the perceptron."""
        # Of one token the call of a module that does nothing is a part worth leaving out.
        x = self._added(x, self.dropout(y) if self.dropout.training else y)
        return self._channels(self.norm(x) if self.post_norm else x)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The mixer's own groups."""
        return self.mixer.parameter_groups()

    def _told(self, **named: Tensor | None) -> dict[str, Any]:
        """The modalities, for a mixer that takes them where there are any."""
        return {k: v for k, v in named.items() if v is not None} if self.accepts_modality else {}

    def _channels(self, x: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return x
        y = self.mlp(x if self.post_norm else self.mlp_norm(x))
        x = self._added(x, self.dropout(y) if self.dropout.training else y)
        return self.mlp_norm(x) if self.post_norm else x

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.scale == 1.0 else torch.add(x, y, alpha=self.scale)

    @classmethod
    def example(cls) -> "Block":
        """A small instance."""
        return cls(MinGRU(8), GatedMLP(8))

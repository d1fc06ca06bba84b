"""A block: a mixer along time, then if wanted a perceptron, each behind a norm and inside a residual."""

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

    Args:
        mixer: what mixes along time; the block's state is its state.
        mlp: what mixes channels of each token; None for a block of the mixer alone.
        norm: "rms", "rms1" (scales are 1 + a parameter), "layer" or "none".
        dropout: chance that an element of a branch is dropped in training.
        norm_eps: added to the mean squares of the norms.
        scale: of what each branch adds to the residual stream.
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
        self.scale = scale
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
        y, state = self.mixer(self.norm(x), state, resets=resets, dt=dt, **told)
        return self.finish(x, y), state

    def step(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> tuple[Token, tuple]:
        """One token: (b, d) to (b, d) and the next state."""
        told = self._told(modality_t=modality_t)
        y_t, state = self.mixer.step(self.norm(x_t), state, dt_t=dt_t, **told)
        return self.finish(x_t, y_t), state

    def advance_(
        self, x_t: Token, state: tuple, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> Token:
        """One token, overwriting a state that its caller owns."""
        told = self._told(modality_t=modality_t)
        y_t = self.mixer.advance_(self.norm(x_t), state, dt_t=dt_t, **told)
        return self.finish(x_t, y_t)

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's output from its input and the mixer's output: the residual, then the perceptron."""
        # Of one token the call of a module that does nothing is a part worth leaving out.
        return self._channels(self._added(x, self.dropout(y) if self.dropout.training else y))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The mixer's own groups."""
        return self.mixer.parameter_groups()

    def _told(self, **named: Tensor | None) -> dict[str, Any]:
        """The modalities, for a mixer that takes them where there are any."""
        return {k: v for k, v in named.items() if v is not None} if self.accepts_modality else {}

    def _channels(self, x: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return x
        y = self.mlp(self.mlp_norm(x))
        return self._added(x, self.dropout(y) if self.dropout.training else y)

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.scale == 1.0 else torch.add(x, y, alpha=self.scale)

    @classmethod
    def example(cls) -> "Block":
        """A small instance."""
        return cls(MinGRU(8), GatedMLP(8))

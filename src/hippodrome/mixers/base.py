"""The mixer contract: one recurrence, two ways to run it, and a state that is handed in and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.shapes import Resets, Sequence, TimeSteps, Token, check_step_sizes

State = NamedTuple
"""A NamedTuple of batch-first tensors, declared beside the mixer that uses it."""


class ParameterGroup(NamedTuple):
    """Parameters that train alike: a factor on the learning rate, and whether weights decay."""

    parameters: list[nn.Parameter]
    lr_factor: float = 1.0
    max_lr: float | None = None
    decay: bool = True


class Mixer(nn.Module, ABC):
    """Mixes information along time: x (b, t, d) to y (b, t, d).

    ``step`` is the definition, plain enough to check against the paper. ``forward`` equals repeated ``step``
    in whatever parallel form is fastest; chunks join through the state. A final mixer is never subclassed.
    """

    d_model: int
    point_channels: int | None = None
    """Where a token is a grid of points flattened, the channels of each point, innermost: the norms around
    the mixer are then over these, with one weight for all points. None where a token is one point."""
    causal: ClassVar[bool] = True
    accepts_dt: ClassVar[bool] = False
    """Whether ``dt`` means something here; where it does not, passing one raises."""
    accepts_resets: ClassVar[bool] = True
    """Whether a row may hold several pieces. False only for what reads a row as one whole, such as a grid."""
    recomputable: ClassVar[bool] = True
    """Whether a call in training, made again for the backward pass, is the same call. False for what moves
    buffers of its own that it reads."""
    reversed_from: ClassVar[str] = "shared"
    """Where the reversed branch of a layer of two directions begins in the literature of this mixer: at the
    token itself ("shared") or at the next one ("offset"); see ``backbones.bidirectional``."""
    accepts_modality: ClassVar[bool] = False
    """Whether tokens of different modalities are treated differently: ``forward`` then takes ``modality``
    (b, t), whole numbers from 0, and ``step`` and ``advance_`` take ``modality_t`` (b,)."""
    mixes_channels: ClassVar[bool] = False
    """Whether the published block is this mixer alone, with no MLP beside it: stacks made from a pattern
    then add none. True for mixers that have a gated output map of their own."""

    @abstractmethod
    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The state before the first token, for ``batch`` rows, on the parameters' device.

        ``max_length`` bounds the number of tokens to come, for mixers whose state grows with them.
        """

    @abstractmethod
    def step(self, x_t: Token, state: Any, *, dt_t: Tensor | None = None) -> tuple[Token, tuple]:
        """One token: (b, d) and a state to (b, d) and the next state. ``state`` is not mutated."""

    @abstractmethod
    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """Many tokens: equals repeated ``step``; token t starts afresh where ``resets[b, t]``."""

    @classmethod
    @abstractmethod
    def example(cls) -> "Mixer":
        """A small instance: it feeds the contract tests, the benchmarks, ``list`` and the docs."""

    def advance_(self, x_t: Token, state: Any, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns. The default is ``step`` plus a copy."""
        y_t, after = self.step(x_t, state, dt_t=dt_t)
        for old, new in zip(state, after, strict=True):
            old.copy_(new)
        return y_t

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """How much of the value written at token j is read at token i, for each head or channel, gates as x
        makes them: entry (b, h, i, j) of the matrix that the recurrence is for this input.

        Ali, Zimerman, Wolf 2024, "The hidden attention of Mamba models", arXiv 2403.01590. Skips around the
        recurrence and output gates are left out.

        Raises:
            ValueError: the recurrence has no such matrix.
        """
        raise ValueError(
            f"{type(self).__name__} has no hidden attention: that is for layers whose gates are made from "
            "the tokens and that read values linearly, such as mamba, mamba2, gla and attention."
        )

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t c"]:
        """The logarithm of what each part of the state keeps at each token, gates as x makes them.

        A part is a channel's state, a head's matrix, or a row of it: whatever decays by one number.

        Raises:
            ValueError: the state does not decay by numbers that the tokens make.
        """
        raise ValueError(
            f"{type(self).__name__} has no decays made from the tokens; that is for layers such as mamba, "
            "mamba2, gla and rg_lru."
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """This mixer's own groups; parameters in none of them train at the global rate with decay."""
        return []

    def reset_rows(self, state: Any, rows: Bool[Tensor, "b"]) -> tuple:
        """The state with the marked rows as ``init_state`` makes them: what a reset does before a step."""
        return reset_rows(state, self.init_state(rows.shape[0]), rows)

    def check_call(
        self, x: Tensor, state: tuple | None, resets: Tensor | None = None, dt: Tensor | None = None
    ) -> None:
        """Raise where a call cannot be meant: no tokens, rows that do not match, a ``dt`` with no time.

        ``forward`` calls it first. It looks at shapes only.
        """
        name = type(self).__name__
        self.refuse_dt(dt)
        if x.shape[1] == 0:
            raise ValueError(
                f"{name} needs at least one token; got x of shape {tuple(x.shape)}. Skip the call."
            )
        if state is not None:
            for tensor in state:
                if tensor.shape[0] != x.shape[0]:
                    raise ValueError(
                        f"The state handed to {name} has {tensor.shape[0]} rows and the input {x.shape[0]}; "
                        f"they must match. Take init_state({x.shape[0]}), or the state of the same rows."
                    )
        for what, marks in (("resets", resets), ("dt", dt)):
            if marks is not None and marks.shape != x.shape[:2]:
                raise ValueError(
                    f"{name} takes {what} of shape (b, t) = {tuple(x.shape[:2])}, one for each token; "
                    f"got {tuple(marks.shape)}."
                )

    def check_modality(self, x: Tensor, modality: Tensor | None) -> None:
        """Raise where modalities are told that are not one whole number for each token."""
        if modality is None:
            return
        if modality.shape != x.shape[:2] or modality.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} takes modality of shape (b, t) = {tuple(x.shape[:2])}, a whole "
                f"number for each token; got {tuple(modality.shape)} of {modality.dtype}."
            )

    def check_values(self, x: Tensor, dt: Tensor | None = None) -> None:
        """Raise where an input or a step size cannot be meant: numbers that are not finite, a dt <= 0.

        A debug check to call by hand before ``forward``: it reads values, which waits for the device and
        breaks a compiled graph, so nothing here calls it.

        Raises:
            ValueError: x has NaN or infinities, some dt is not positive and finite, or none has meaning here.
        """
        name = type(self).__name__
        self.refuse_dt(dt)
        bad = ~x.isfinite()
        if bad.any():
            place = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"{name} takes finite inputs; got {x[place].item():g} at index {place}, and "
                f"{int(bad.sum())} of {x.numel()} are not finite. Fill or mask missing values first."
            )
        if dt is not None:
            check_step_sizes(dt, name)

    def refuse_dt(self, dt: Tensor | None) -> None:
        """Raise where ``dt`` is given to a mixer that has no continuous time."""
        if dt is not None and not self.accepts_dt:
            raise ValueError(
                f"{type(self).__name__} has no continuous time, so it takes no dt; got one of shape "
                f"{tuple(dt.shape)}. Drop dt, or choose a mixer that honours it (`hippodrome list mixers`)."
            )


def check_word(owner: str, what: str, word: str, words: Iterable[str]) -> None:
    """Raise where an argument that is one of a few words is another.

    Raises:
        ValueError: ``word`` is none of ``words``.
    """
    known = list(words)
    if word not in known:
        raise ValueError(f"{owner} has no {what} {word!r}; expected one of {', '.join(known)}.")


def reset_rows(state: tuple, fresh: tuple, rows: Tensor) -> tuple:
    """The state with the marked rows (b,) taken from ``fresh``."""
    return type(state)(
        *(
            torch.where(rows.view(-1, *[1] * (old.dim() - 1)), new, old)
            for old, new in zip(state, fresh, strict=True)
        )
    )


def run_steps(
    mixer: Mixer,
    x: Tensor,
    state: tuple | None = None,
    *,
    resets: Tensor | None = None,
    dt: Tensor | None = None,
) -> tuple[Tensor, tuple]:
    """``forward`` by its definition: one ``step`` after the other. The oracle of the contract tests."""
    b, t, _ = x.shape
    state = mixer.init_state(b, t) if state is None else state
    outputs = []
    for i in range(t):
        if resets is not None:
            state = mixer.reset_rows(state, resets[:, i])
        y_t, state = mixer.step(x[:, i], state, dt_t=None if dt is None else dt[:, i])
        outputs.append(y_t)
    return torch.stack(outputs, 1), state

"""Reading prompts: in parallel, in chunks that bound the memory, rows of unequal lengths together."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hippodrome.generate import rows
from hippodrome.models.base import Model

CHUNK = 2048
"""Tokens of a prompt that are read at once: memory is bound by this, not by the prompt."""

PIECE = 128
"""Tokens that are worth a call: rows that begin within so many begin together, the later ones padded."""

Prompts = Int[Tensor, "b t"] | Sequence[Int[Tensor, "_"]]
"""Token ids of rows of one length, or of each row."""


def lengths_of(prompts: Prompts) -> list[int]:
    """The number of tokens of each row.

    Raises:
        ValueError: no rows, a row without a token, or what is no token ids.
    """
    if isinstance(prompts, Tensor):
        if prompts.dim() != 2 or 0 in prompts.shape:
            raise ValueError(
                "a prompt is token ids of shape (b, t) with at least one token in a row; got "
                f"{tuple(prompts.shape)}"
            )
        return [prompts.shape[1]] * len(prompts)
    if not prompts:
        raise ValueError("there is no prompt: give the token ids of one row at least")
    for number, prompt in enumerate(prompts, 1):
        if prompt.dim() != 1 or len(prompt) == 0:
            raise ValueError(
                f"each prompt is token ids of shape (t,) with at least one token; prompt {number} has shape "
                f"{tuple(prompt.shape)}"
            )
    return [len(prompt) for prompt in prompts]


def check_ids(prompts: Prompts, vocab_size: int) -> None:
    """Raises ValueError for a token id that the model does not have."""
    for number, row in enumerate(prompts, 1):
        outside = row[(row < 0) | (row >= vocab_size)]
        if len(outside):
            raise ValueError(
                f"token ids are from 0 to {vocab_size - 1} for this model; prompt {number} has "
                f"{int(outside[0])}. Encode it with the tokenizer of the model."
            )


def prefill(
    model: Model,
    ids: Prompts,
    state: tuple | None = None,
    *,
    chunk: int = CHUNK,
    max_length: int | None = None,
) -> tuple[Float[Tensor, "b vocab"], tuple]:
    """Reads tokens, however many, and returns the logits after the last one of each row and the state.

    Rows of unequal lengths begin at different times and end together. Those that begin at nearly the same
    time are padded to begin together, and a reset at a row's first token forgets its padding. Rows that go on
    from a state begin together and leave as they end.

    Args:
        model: in evaluation mode.
        ids: of rows of one length, or a list of those of each row.
        state: after the tokens before; None for none.
        chunk: tokens of a row that are read at once.
        max_length: bounds the tokens to come in all, for mixers whose state grows with them.

    Raises:
        ValueError: a row without a token, or a chunk of none.
    """
    lengths = lengths_of(ids)
    if chunk < 1:
        raise ValueError(f"prompts are read in chunks of 1 token or more; got {chunk}. Give {CHUNK}, say.")
    device = next(model.parameters()).device
    with torch.no_grad():
        if len(set(lengths)) == 1:
            together = ids if isinstance(ids, Tensor) else torch.stack(list(ids))
            state = model.init_state(len(lengths), max_length) if state is None else state
            for piece in together.split(chunk, 1):
                last, state = model.last(piece.to(device), state)
            return last, state
        # The longest first: then the rows that are read at a time are always the first ones.
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        sorted_ids = [ids[row].to(device) for row in order]
        if state is None:
            last, state = _ending_together(model, sorted_ids, chunk, max_length)
        else:
            last, state = _beginning_together(model, sorted_ids, rows.take(state, order), chunk)
        back = torch.tensor(order).argsort()
        return last[back.to(device)], rows.take(state, back)


def _ending_together(
    model: Model, ids: list[Tensor], chunk: int, max_length: int | None
) -> tuple[Tensor, tuple]:
    """Rows of falling length from nothing, padded on the left."""
    longest = len(ids[0])
    padded = pad_sequence([row.flip(0) for row in ids], batch_first=True).flip(1)
    begins = torch.tensor([longest - len(row) for row in ids], device=padded.device)
    state, end = None, 0
    while end < longest:
        start = end
        later = begins[begins > start]
        next_begin = int(later.min()) if len(later) else longest
        end = min(start + chunk, longest, max(next_begin, start + PIECE))
        running = int((begins < end).sum())
        new = running - (0 if state is None else rows.size(state))
        if new:
            fresh = model.init_state(new, max_length)
            state = fresh if state is None else rows.stack([state, fresh])
        at = begins[:running, None] - start
        resets = torch.arange(end - start, device=at.device) == at
        inside = bool((at > 0).any())
        last, state = model.last(padded[:running, start:end], state, resets=resets if inside else None)
    assert state is not None
    return last, state


def _beginning_together(model: Model, ids: list[Tensor], state: tuple, chunk: int) -> tuple[Tensor, tuple]:
    """Rows of falling length from a state: each leaves the batch where it ends."""
    padded = pad_sequence(ids, batch_first=True)
    lasts: list[Tensor] = []
    states: list[tuple] = []
    edges = sorted({0, *(len(row) for row in ids)})
    for start, end in pairwise(edges):
        running = sum(len(row) >= end for row in ids)
        for piece in padded[:running, start:end].split(chunk, 1):
            last, state = model.last(piece, state)
        left = sum(len(row) > end for row in ids)
        lasts.append(last[left:])
        states.append(rows.take(state, range(left, running)))
        state = rows.take(state, range(left)) if left else state
    return torch.cat(lasts[::-1]), rows.stack(states[::-1])

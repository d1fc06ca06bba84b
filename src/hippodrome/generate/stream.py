"""Continuations of prompts: read the prompt in parallel, then one token at a time, in constant memory."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.generate.decoder import Decoder
from hippodrome.generate.decoding import TextStream
from hippodrome.generate.sampling import Sampler
from hippodrome.models.base import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 2048
"""Tokens of a prompt that are read at once: memory is bound by this, not by the prompt."""


def prefill(
    model: Model,
    ids: Int[Tensor, "b t"],
    state: tuple | None = None,
    *,
    chunk: int = CHUNK,
    max_length: int | None = None,
) -> tuple[Float[Tensor, "b vocab"], tuple]:
    """Reads tokens, however many, and returns the logits after the last one and the state.

    ``max_length`` bounds the tokens to come in all, for mixers whose state grows with them. Raises ValueError
    where there is no token.
    """
    if ids.dim() != 2 or ids.shape[1] == 0:
        raise ValueError(
            f"a prompt is token ids of shape (b, t) with at least one token in a row; got {tuple(ids.shape)}"
        )
    device = next(model.parameters()).device
    with torch.no_grad():
        state = model.init_state(ids.shape[0], max_length) if state is None else state
        for piece in ids.split(chunk, 1):
            last, state = model.last(piece.to(device), state)
    return last, state


def generate(
    model: Model,
    prompt_ids: Int[Tensor, "b t"],
    *,
    max_new_tokens: int | None = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
) -> Iterator[Int[Tensor, "b"]]:
    """Continues prompts of equal length, yielding the next token ids (b,) of all rows as they are chosen.

    ``max_new_tokens=None`` goes on without end, in constant memory where the mixers' states are of constant
    size. ``temperature=0`` takes the likeliest token; the cuts are told in ``Sampler``. With a ``seed`` the
    same call gives the same tokens. Ends early when every row has had a token of ``stop``. The model is put
    into evaluation mode until the end. Raises ValueError where an argument is out of its range.
    """
    sampler = Sampler(temperature, top_k, top_p, min_p)
    sampler.check()
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is 0 or more, or None for no end; got {max_new_tokens}")
    return _continue(model, prompt_ids, max_new_tokens, sampler, seed, frozenset(stop))


def text(
    model: Model,
    tokenizer: "Tokenizer",
    prompt: str,
    *,
    max_new_tokens: int | None = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
) -> Iterator[str]:
    """Continues a text, yielding pieces of the continuation that hold whole characters only.

    Arguments as in ``generate``; an empty prompt raises ValueError, for the model has nothing to go on.
    """
    ids = tokenizer.encode(prompt).ids
    if not ids:
        raise ValueError("the prompt is empty: give at least one character to go on from")
    tokens = generate(
        model,
        torch.tensor([ids]),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=stop,
    )
    return _spelled(tokens, TextStream(tokenizer))


def _spelled(tokens: Iterator[Tensor], stream: TextStream) -> Iterator[str]:
    for token in tokens:
        if piece := stream.push(int(token[0])):
            yield piece
    if piece := stream.flush():
        yield piece


def _continue(
    model: Model,
    prompt_ids: Tensor,
    max_new_tokens: int | None,
    sampler: Sampler,
    seed: int | None,
    stop: frozenset[int],
) -> Iterator[Tensor]:
    if max_new_tokens == 0:
        return
    device = next(model.parameters()).device
    generator = torch.Generator(device)
    generator.manual_seed(seed) if seed is not None else generator.seed()
    length = None if max_new_tokens is None else prompt_ids.shape[1] + max_new_tokens
    ends = torch.tensor(sorted(stop), dtype=torch.long, device=device)
    ended = torch.zeros(prompt_ids.shape[0], dtype=torch.bool, device=device)
    with _evaluation(model):
        logits, state = prefill(model, prompt_ids, max_length=length)
        decoder = Decoder(model, state, fixed=length is not None)
        made = 0
        while True:
            ids = sampler.choose(logits, generator)
            yield ids
            made += 1
            if stop:
                ended |= torch.isin(ids, ends)
            if made == max_new_tokens or (stop and bool(ended.all())):
                return
            logits = decoder.next(ids)


@contextmanager
def _evaluation(model: Model) -> Iterator[None]:
    """The model without dropout; the mode that it was in comes back at the end."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)

"""Continuations of prompts as a stream: read the prompt in parallel, then one token at a time."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from hippodrome.generate.continuations import (
    Continuations,
    check_count,
    evaluation,
    pieces,
    seeds,
    vocabulary,
)
from hippodrome.generate.decoder import Decoder
from hippodrome.generate.prompts import Prompts, check_ids, lengths_of, prefill
from hippodrome.generate.sampling import Chooser, Sampler
from hippodrome.models.base import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["generate", "prefill", "text"]


def generate(
    model: Model,
    prompt_ids: Prompts,
    *,
    max_new_tokens: int | None = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | Sequence[int] | None = None,
    stop: Collection[int] = (),
) -> Iterator[Int[Tensor, "b"]]:
    """Continues prompts, yielding the next token ids (b,) of all rows as they are chosen.

    Each row is what it would be alone, whatever the lengths of the prompts. ``max_new_tokens=None`` goes on
    without end, in constant memory where the mixers' states are of constant size. ``temperature=0`` takes the
    likeliest token; the cuts are told in ``Sampler``. With a ``seed`` the same call gives the same tokens:
    row i draws by ``seed + i``, or by a seed of its own where there is one for each row. A row that has had
    a token of ``stop`` repeats it; when every row has, it ends. The model is put into evaluation mode until
    the end. ``pieces`` gives text, log-probabilities and the reasons of ends, and takes penalties.

    Raises:
        ValueError: an argument out of its range, or a row without a token or with one that is not there.
    """
    sampler = Sampler(temperature, top_k, top_p, min_p)
    sampler.check()
    check_count(max_new_tokens)
    lengths = lengths_of(prompt_ids)
    choosers = [Chooser(sampler, vocab_size=vocabulary(model), seed=row) for row in seeds(seed, len(lengths))]
    if next(model.parameters()).device.type != "cpu":
        check_ids(prompt_ids, vocabulary(model))
        return _on_device(model, prompt_ids, max_new_tokens, sampler, choosers, frozenset(stop))
    going = Continuations(model, prompt_ids, choosers, max_new_tokens=max_new_tokens, ends=stop)
    return _together(going)


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
    stops: Sequence[str] = (),
) -> Iterator[str]:
    """Continues a text, yielding pieces of the continuation that hold whole characters only.

    It ends before a token of ``stop`` and before a string of ``stops``. The other arguments are those of
    ``generate``; an empty prompt raises ValueError, for the model has nothing to go on.
    """
    found = pieces(
        model,
        tokenizer,
        [prompt],
        sampler=Sampler(temperature, top_k, top_p, min_p),
        max_new_tokens=max_new_tokens,
        seed=seed,
        ends=stop,
        stops=stops,
    )
    return (piece.text for piece in found if piece.text)


def _together(going: Continuations) -> Iterator[Tensor]:
    """The ids of all rows, of those that have ended their last one."""
    last = [0] * len(going.choosers)
    for chosen in going:
        last = [old if found is None else found.id for old, found in zip(last, chosen, strict=True)]
        yield torch.tensor(last)


def _on_device(
    model: Model,
    prompt_ids: Prompts,
    max_new_tokens: int | None,
    sampler: Sampler,
    choosers: Sequence[Chooser],
    stop: frozenset[int],
) -> Iterator[Tensor]:
    """The same on an accelerator, where rows choose at once and the queue is not waited for."""
    if max_new_tokens == 0:
        return
    device = next(model.parameters()).device
    exact = torch.float32 if device.type == "mps" else torch.float64
    length = None if max_new_tokens is None else max(lengths_of(prompt_ids)) + max_new_tokens
    ends = torch.tensor(sorted(stop), dtype=torch.long, device=device)
    ended = torch.zeros(len(choosers), dtype=torch.bool, device=device)
    with evaluation(model):
        logits, state = prefill(model, prompt_ids, max_length=length)
        decoder = Decoder(model, state, fixed=length is not None)
        made = 0
        ids = torch.zeros(len(choosers), dtype=torch.long, device=device)
        while True:
            chance = None
            if not sampler.greedy:
                chance = torch.tensor([row.uniform() for row in choosers], dtype=exact).to(device)
            ids = torch.where(ended, ids, sampler.draw(logits, chance))
            yield ids
            made += 1
            if stop:
                ended |= torch.isin(ids, ends)
            if made == max_new_tokens or (stop and bool(ended.all())):
                return
            logits = decoder.next(ids)

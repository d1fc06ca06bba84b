"""Filling in: what a masked language model puts where a text has holes."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HOLE = re.compile(r"\[MASK(?:x(\d+))?\]")
"""[MASK], one token that is hidden, or [MASKx5], five of them."""


class Place(NamedTuple):
    """A hidden place: the likeliest tokens as text, their chances before anything was filled in."""

    tokens: list[str]
    chances: list[float]


class Filled(NamedTuple):
    """A text with its holes filled in, and what might have stood in each."""

    text: str
    places: list[Place]


def fill(model: Any, tokenizer: "Tokenizer", text: str, *, top: int = 5, at_once: bool = False) -> Filled:
    """Fill in the holes of a text.

    Args:
        model: a masked language model.
        tokenizer: of its tokens.
        text: with ``[MASK]`` for each token that is hidden, ``[MASKx5]`` for five.
        top: how many candidates to name for each place.
        at_once: whether all places are filled in from what is given; else one by one, the surest first, each
            read by those that follow.

    Raises:
        ValueError: no hole, or letters that the tokenizer does not know.
    """
    tokens = holed(model.mask_token, tokenizer, text)
    places = tokens == model.mask_token
    if not bool(places.any()):
        raise ValueError(
            "there is nothing to fill in: write [MASK] for each token that is hidden, or [MASKx5] for five."
        )
    tokens = tokens.to(next(model.parameters()).device)
    chances = chances_at(model, tokens)
    likeliest = chances.topk(min(top, chances.shape[1]), dim=1)
    found = [
        Place([tokenizer.decode([i]) for i in ids], values)
        for ids, values in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    ]
    return Filled(tokenizer.decode(filled(model, tokens, at_once).tolist()), found)


def holed(mask_token: int, tokenizer: "Tokenizer", text: str) -> Int[Tensor, "t"]:
    """The token ids of a text with holes.

    Raises:
        ValueError: letters that the tokenizer does not know.
    """
    ids: list[int] = []
    end = 0
    for hole in HOLE.finditer(text):
        ids += token_ids(tokenizer, text[end : hole.start()]) + [mask_token] * int(hole[1] or 1)
        end = hole.end()
    return torch.tensor(ids + token_ids(tokenizer, text[end:]), dtype=torch.int64)


def chances_at(model: Any, tokens: Int[Tensor, "t"]) -> Float[Tensor, "places vocab"]:
    """The chance of each token id at each hidden place; that of being hidden is none."""
    with torch.no_grad():
        logits = model(tokens[None])[0][0][tokens == model.mask_token]
    if model.mask_token < logits.shape[1]:
        logits[:, model.mask_token] = -torch.inf
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def filled(model: Any, tokens: Int[Tensor, "t"], at_once: bool = False) -> Int[Tensor, "t"]:
    """The tokens with the likeliest one at each hidden place: of all at once, or the surest place first."""
    tokens = tokens.clone()
    while bool((places := (tokens == model.mask_token).nonzero()[:, 0]).numel()):
        chances, ids = chances_at(model, tokens).max(-1)
        chosen = slice(None) if at_once else chances.argmax()[None]
        tokens[places[chosen]] = ids[chosen]
    return tokens


def token_ids(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The token ids of a piece of text.

    Raises:
        ValueError: letters that the tokenizer does not know.
    """
    if not text:
        return []
    found = tokenizer.encode(text, add_special_tokens=False)
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and unknown in found.tokens:
        raise ValueError(
            f"the model knows no token for some letter of {text[:40]!r}. Write only letters that it was "
            f"trained on."
        )
    return found.ids

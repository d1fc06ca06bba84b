"""Beam search: the likeliest continuations that a search of a given width finds, each with its score."""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.backbones._rows import overwrite
from hippodrome.generate import rows
from hippodrome.generate.continuations import FinishReason, check_count, evaluation, vocabulary
from hippodrome.generate.decoder import Decoder
from hippodrome.generate.prompts import CHUNK, Prompts, check_ids, lengths_of, prefill
from hippodrome.models.base import Model


class Beam(NamedTuple):
    """A continuation that was found."""

    ids: tuple[int, ...]
    """Its tokens, the one that ended it among them."""
    score: float
    """The sum of its log-probabilities over its number of tokens to the power of the length penalty."""
    finish_reason: FinishReason


def beams(
    model: Model,
    prompts: Prompts,
    *,
    width: int = 4,
    max_new_tokens: int = 256,
    ends: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    count: int = 1,
    vocab_size: int | None = None,
    chunk: int = CHUNK,
) -> list[list[Beam]]:
    """The best continuations of each prompt, the best first.

    At each token the ``width`` likeliest continuations of those before go on (Lowerre 1976, "The HARPY speech
    recognition system"). One that ends is kept with its score where it was among the ``width`` likeliest of
    all. The length penalty is that of Wu et al. 2016, arXiv 1609.08144, section 7, without its constants. The
    rules of what is kept and when to stop are those of ``transformers``, so the same logits give the same
    continuations.

    Args:
        model: a language model.
        prompts: token ids, of rows of one length or of each row.
        width: continuations that go on at a time, for each prompt.
        max_new_tokens: of each continuation.
        ends: token ids that end one.
        length_penalty: above 0 favours long ones, for the sum is negative; 0 takes the sum itself.
        early_stopping: True stops when ``width`` have ended; False when no running one of its present length
            would be better than the worst of those; "never" when none could be that, however long.
        count: continuations that are returned for each prompt, ``width`` at most.
        vocab_size: ids that may be chosen are below this, as in ``Chooser``; None for all that the model has.
        chunk: tokens of a prompt that are read at once.

    Raises:
        ValueError: a prompt without a token or with one that the model does not have, or a number out of its
            range.
    """
    lengths = lengths_of(prompts)
    check_ids(prompts, vocabulary(model))
    check_count(max_new_tokens)
    if not 1 <= count <= width:
        raise ValueError(f"width is 1 or more and count from 1 to width; got width {width}, count {count}")
    if max_new_tokens == 0:
        return [[Beam((), 0.0, "length")] for _ in lengths]
    rules = _Rules(width, max_new_tokens, frozenset(ends), length_penalty, early_stopping)
    searches = [_Search(rules) for _ in lengths]
    room = max(lengths) + max_new_tokens
    with evaluation(model), torch.no_grad():
        logits, state = prefill(model, prompts, chunk=chunk, max_length=room)
        # The running continuations of a search lie together; those of searches that are over have left.
        scores = _scores(logits[:, :vocab_size])
        parents, ids, going = _advance(searches, scores)
        decoder = Decoder(model, rows.take(state, parents), fixed=True) if going else None
        while decoder is not None:
            scores = _scores(decoder.next(torch.tensor(ids, device=logits.device))[:, :vocab_size])
            before = len(parents)
            parents, ids, going = _advance(going, scores)
            if not going:
                break
            forked = rows.take(decoder.state, parents)
            if len(parents) == before:
                overwrite(decoder.state, forked)
            else:
                decoder = Decoder(model, forked, fixed=True)
    return [search.best(count) for search in searches]


class _Rules(NamedTuple):
    width: int
    most: int
    ends: frozenset[int]
    length_penalty: float
    early_stopping: bool | Literal["never"]

    def score(self, total: float, length: int) -> float:
        return total / length**self.length_penalty


class _Search:
    """The search of one prompt."""

    def __init__(self, rules: _Rules) -> None:
        self.rules = rules
        self.running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        """Sums of log-probabilities and tokens, the likeliest first."""
        self.ended: list[Beam] = []
        """At most ``width`` of them, the best first."""
        self.over = False

    def advance(self, scores: Float[Tensor, "running vocab"]) -> list[int]:
        """Goes on by a token, and returns which running continuation each of the new ones comes from."""
        rules, vocab = self.rules, scores.shape[1]
        totals = scores + torch.tensor([[total] for total, _ in self.running], dtype=scores.dtype)
        # So many that ``width`` of them go on even if all the others end.
        kept = max(2, 1 + len(rules.ends)) * rules.width
        found = totals.flatten().topk(min(kept, totals.numel()))
        new: list[tuple[float, tuple[int, ...]]] = []
        parents: list[int] = []
        for rank, (total, place) in enumerate(
            zip(found.values.tolist(), found.indices.tolist(), strict=True)
        ):
            parent, token = divmod(place, vocab)
            ids = (*self.running[parent][1], token)
            reason: FinishReason | None = "length" if len(ids) == rules.most else None
            reason = "stop" if token in rules.ends else reason
            if reason is None:
                new.append((total, ids))
                parents.append(parent)
            elif rank < rules.width:
                self.ended.append(Beam(ids, rules.score(total, len(ids)), reason))
        self.running = new[: rules.width]
        self.ended = sorted(self.ended, key=lambda beam: -beam.score)[: rules.width]
        self.over = not self.running or self._settled()
        return parents[: rules.width]

    def best(self, count: int) -> list[Beam]:
        """The best that ended."""
        return self.ended[:count]

    def _settled(self) -> bool:
        """Whether enough have ended, and those that run are not held to become better."""
        rules = self.rules
        if len(self.ended) < rules.width:
            return False
        if rules.early_stopping is True:
            return True
        total, ids = self.running[0]
        longest = rules.early_stopping == "never" and rules.length_penalty > 0
        return rules.score(total, rules.most if longest else len(ids)) <= self.ended[-1].score


def _scores(logits: Float[Tensor, "r vocab"]) -> Float[Tensor, "r vocab"]:
    """Log-probabilities in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).cpu()


def _advance(searches: Sequence[_Search], scores: Tensor) -> tuple[list[int], list[int], list[_Search]]:
    """All searches by one token: rows that those that go on come from, their tokens, and their searches."""
    parents: list[int] = []
    ids: list[int] = []
    start = 0
    for search in searches:
        end = start + len(search.running)
        places = search.advance(scores[start:end])
        if not search.over:
            parents += [start + place for place in places]
            ids += [tokens[-1] for _, tokens in search.running]
        start = end
    return parents, ids, [search for search in searches if not search.over]

"""A prompt as it is read, piece by piece, beginning at the longest part whose state is at hand."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.generate import rows
from hippodrome.generate.batch import rounded
from hippodrome.generate.prefix_cache import PrefixCache
from hippodrome.generate.request import Read, Request, Spelled
from hippodrome.generate.row import prompt_logprobs
from hippodrome.models.base import Model

BLOCK = 256
"""States are kept after this many tokens of a prompt, twice as many, and so on, and after all of it: of a
beginning that prompts share at least half is found again, and a long prompt keeps few states."""


class Reading:
    """The prompt of a request on its way into a state.

    Args:
        model: in evaluation mode.
        request: what is to be read, and what is to be told of it.
        grows: whether the model's states need room for the tokens to come.
        cache: where states may be found and are kept; None for nowhere.
    """

    def __init__(self, model: Model, request: Request, grows: bool, cache: PrefixCache | None) -> None:
        self.model, self.request, self.grows, self.cache = model, request, grows, cache
        self.done, self.cached = 0, 0
        self.state: Any = None
        self.slots = rounded(len(request.ids) + 1) if grows else None
        """Tokens that the state has room for, where it needs any: the prompt and one more at least."""
        self.logits = torch.empty(0)
        """After the last token that was read (1, vocab)."""
        self._tokens: list[Spelled] = []

    def go_on(self, budget: int) -> int:
        """Reads at most so many tokens more and returns how many. ``done`` ends as the prompt's length."""
        ids = self.request.ids
        if self.state is None:
            self._begin()
        first = self.done
        if first == len(ids):
            return 0
        end = min(len(ids), self.done + budget)
        mark = self._next_mark()
        if self.done < mark < end:
            end = mark
        device = next(self.model.parameters()).device
        piece = torch.tensor([ids[self.done : end]], device=device)
        if self.request.prompt_logprobs:
            logits, self.state = self.model(piece, self.state)
            self._spell(logits[0], end)
            self.logits = logits[:, -1].clone()
        else:
            self.logits, self.state = self.model.last(piece, self.state)
        self.done = end
        if self.cache is not None and end in (mark, len(ids)):
            state = self.state
            if self.grows:
                state = rows.cut(state, self.model.init_state(1, end))
            self.cache.put(ids[:end], state, self.logits)
        return end - first

    def event(self) -> Read:
        """What there is to tell when all is read."""
        return Read(self.cached, tuple(self._tokens))

    def _begin(self) -> None:
        ids = self.request.ids
        self.state = self.model.init_state(1, self.slots)
        # Log-probabilities of a prompt need the model at each of its tokens.
        found = None if self.cache is None or self.request.prompt_logprobs else self.cache.longest(ids)
        if found is None:
            return
        self.done, state, self.logits = found
        self.cached = self.done
        if self.grows:
            rows.put_(self.state, [0], state)
        else:
            self.state = state

    def _next_mark(self) -> int:
        mark = BLOCK
        while mark <= self.done:
            mark *= 2
        return mark

    def _spell(self, logits: Tensor, end: int) -> None:
        """The log-probabilities of the tokens that these logits come before."""
        ids, top = self.request.ids, self.request.logprobs or 0
        if self.done == 0:
            self._tokens.append(Spelled(ids[0], None, (), 0))
        following = list(ids[self.done + 1 : end + 1])
        told = prompt_logprobs(logits, following, top)
        self._tokens += [Spelled(i, one, most, 0) for i, (one, most) in zip(following, told, strict=True)]

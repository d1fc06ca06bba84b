"""One continuation as it grows: what it chooses, what of it is text, and when it ends."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.generate.decoding import StopText, TextStream
from hippodrome.generate.request import Ended, Event, Request, Spelled, Written
from hippodrome.generate.sampling import Chooser

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Row:
    """The row with this number of a request.

    Args:
        request: what was asked.
        number: of the row in it.
        vocab_size: ids that may be chosen are below this.
        tokenizer: turns tokens into text; None where they are none, and no text is told then.
    """

    def __init__(
        self, request: Request, number: int, vocab_size: int, tokenizer: "Tokenizer | None" = None
    ) -> None:
        self.request, self.number = request, number
        self.made: list[int] = []
        self.ended = False
        self._constraint = None if request.constraint is None else request.constraint.copy()
        self._chooser = Chooser(
            request.sampler,
            vocab_size=vocab_size,
            seed=None if request.seed is None else request.seed + number,
            prompt=request.ids,
            constraint=self._constraint,
            logprobs=request.logprobs,
        )
        before = () if request.apart else request.ids
        self._stream = None if tokenizer is None else TextStream(tokenizer, before)
        self._stop = StopText(request.stops)
        self._spelled, self._shown = 0, 0
        self._held: list[Spelled] = []

    def choose(self, logits: Float[Tensor, "vocab"]) -> list[Event]:
        """The next token from the logits before it, as events; afterwards ``made`` ends with it.

        Raises:
            ValueError: logits from which nothing can be chosen.
        """
        chosen = self._chooser.choose(logits)
        self.made.append(chosen.id)
        if chosen.id in self.request.ends:
            return self._close("stop", "")
        if self.request.logprobs is not None:
            self._held.append(Spelled(chosen.id, chosen.logprob, chosen.top, self._spelled))
        piece = "" if self._stream is None else self._stream.push(chosen.id)
        text, met = self._pass(piece)
        if met:
            return self._close("stop", text, cut=True)
        if self.complete:
            return self._close("stop", text)
        if len(self.made) == self.request.max_tokens:
            return self._close("length", text)
        return self._tell(text)

    @property
    def complete(self) -> bool:
        """Whether a constraint lets nothing follow."""
        return self._constraint is not None and self._constraint.done

    def close(self) -> list[Event]:
        """The events of a row that is to write nothing more."""
        return self._close("stop" if self.complete else "length", "")

    def _pass(self, piece: str) -> tuple[str, bool]:
        self._spelled += len(piece)
        return self._stop.push(piece) if piece else ("", False)

    def _close(self, reason: str, text: str, cut: bool = False) -> list[Event]:
        """The last events, with what was held back unless a stop string cuts it off."""
        self.ended = True
        if not cut:
            more, cut = self._pass("" if self._stream is None else self._stream.flush())
            text += more
            reason = "stop" if cut else reason
        if not cut:
            text += self._stop.flush()
        told = self._tell(text, rest=not cut)
        return [*told, Ended(self.number, reason, len(self.made))]

    def _tell(self, text: str, rest: bool = False) -> list[Event]:
        """Text, with the tokens that it begins to show; with ``rest`` all that are left."""
        self._shown += len(text)
        told = [token for token in self._held if rest or token.offset < self._shown]
        self._held = self._held[len(told) :]
        return [Written(self.number, text, tuple(told))] if text or told else []


def prompt_logprobs(
    logits: Float[Tensor, "t vocab"], following: list[int], top: int
) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """The log-probability of the token after each place, and the likeliest ones there."""
    logs = logits[: len(following)].float().log_softmax(-1)
    own = logs.gather(1, torch.tensor(following, device=logs.device)[:, None])[:, 0].tolist()
    values, ids = (part.tolist() for part in logs.topk(min(top, logs.shape[1]), -1))
    return [(one, tuple(zip(i, v, strict=True))) for one, i, v in zip(own, ids, values, strict=True)]

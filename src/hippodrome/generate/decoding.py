"""Token ids to text as they come, with no character cut in two, up to a text that ends it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST = 4
"""Bytes of the longest character in UTF-8."""
_BEFORE = 8
"""Tokens before a text that are looked at: more than one, since the last may write nothing."""


class TextStream:
    """Turns token ids into text one by one, holding back bytes until they make up whole characters.

    Bytes that are no UTF-8 come out as U+FFFD. What is held back stays small whatever comes.

    Args:
        tokenizer: of the tokens.
        before: token ids that the text goes on from. Some tokenizers drop the space that a text begins with,
            which in the middle of one is part of it.
    """

    held: list[int]

    def __init__(self, tokenizer: "Tokenizer", before: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._restart(before[-_BEFORE:])

    def push(self, token: int) -> str:
        """The text that this token completes; empty where it completes none."""
        self.held.append(token)
        try:
            text = self.stream.step(self.tokenizer, token)
        except Exception:  # the library's own class of errors
            # Bytes in a row were read as letters, and one more has shown that they are none. What was shown
            # stays; the bytes since then are marked.
            text = self.tokenizer.decode(self.held)
            self._restart([token])
        if text:
            self.held = []
            return text
        if len(self.held) < 4 * _LONGEST:
            return ""
        # None of these began a character that a later one ended, so all but the last few never will.
        lost, kept = self.held[:-_LONGEST], self.held[-_LONGEST:]
        self._restart()
        return self.tokenizer.decode(lost) + "".join(self.push(token) for token in kept)

    def flush(self) -> str:
        """The text of what is still held back, at the end of the tokens."""
        held = self.held
        self._restart()
        return self.tokenizer.decode(held) if held else ""

    def _restart(self, before: Sequence[int] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        # Half a character before would no longer be there once it is whole, which the decoder cannot bear.
        context = [] if "\ufffd" in self.tokenizer.decode(list(before)) else list(before)
        self.stream = DecodeStream(ids=context, skip_special_tokens=True)
        self.held = []


class StopText:
    """Lets text through up to the first of some stop strings, however the text is cut into pieces.

    What might be the beginning of a stop string is held back until more text shows whether it is. Of several
    stop strings the one counts that is complete first, and of those the longest.

    Args:
        stops: none of them empty; without any, all text passes at once.

    Raises:
        ValueError: an empty stop string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        stops = [stops] if isinstance(stops, str) else list(stops)
        if "" in stops:
            raise ValueError("a stop string holds one character at least; got an empty one. Leave it out.")
        self.stops = stops
        self.met = False
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string was met: no text comes after it."""
        if self.met or not self.stops:
            return "" if self.met else piece, self.met
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.met, self._held = True, ""
            return text[: min(found)[1]], True
        kept = max(self._begun(text, stop) for stop in self.stops)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], False

    def flush(self) -> str:
        """The text still held back, at the end of it all."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str, stop: str) -> int:
        """How many characters at the end of a text are the beginning of a stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

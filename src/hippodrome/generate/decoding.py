"""Token ids to text as they come, with no character cut in two."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST = 4
"""Bytes of the longest character in UTF-8."""


class TextStream:
    """Turns token ids into text one by one, holding back bytes until they make up whole characters.

    Bytes that are no UTF-8 come out as U+FFFD. What is held back stays small whatever comes.
    """

    held: list[int]

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer
        self._restart()

    def push(self, token: int) -> str:
        """The text that this token completes; empty where it completes none."""
        self.held.append(token)
        text = self.stream.step(self.tokenizer, token)
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

    def _restart(self) -> None:
        from tokenizers.decoders import DecodeStream

        self.stream = DecodeStream(skip_special_tokens=True)
        self.held = []

"""What a token reads as by itself: its text, and the bytes of it where it is a part of a character."""

from functools import cached_property
from typing import TYPE_CHECKING

from hippodrome.generate.token_bytes import token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Spelling:
    """The tokens of a tokenizer, each by itself."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer

    @cached_property
    def _bytes(self) -> list[bytes] | None:
        try:
            return token_bytes(self.tokenizer)
        except ValueError:
            # Tokens of this tokenizer have no bytes of their own; their text is what it decodes them to.
            return None

    def written(self, token: int) -> bytes | None:
        """The bytes that a token writes; None where it has none of its own, as special tokens have."""
        known = self._bytes
        if known is None or token >= len(known) or not known[token]:
            return None
        return known[token]

    def text(self, token: int) -> str:
        """The text of a token; a part of a character reads ``bytes:\\\\xe4``, as the protocol's own does."""
        written = self.written(token)
        if written is None:
            name = self.tokenizer.id_to_token(token)
            return f"<{token}>" if name is None else name
        try:
            return written.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)

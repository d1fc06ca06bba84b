"""Constraints: output that matches a regular expression or is JSON of a schema, whatever the model is.

Before a token is chosen all those are ruled out after which the text could no longer be completed. Which
ones these are is worked out by ``llguidance`` (Python alone would take seconds a token at a vocabulary of
fifty thousand), on the bytes that each token writes. It has no dependencies and needs no GPU libraries.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.generate.token_bytes import token_bytes

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer

_SPACE = r"( |\n{1,2}[ \t]{0,20})?"
"""White space between the parts of JSON: bounded, for a model that may write it for ever sometimes does."""


@runtime_checkable
class Constraint(Protocol):
    """What a text being written has to keep to; it is told each token."""

    def mask_(self, logits: Float[Tensor, "vocab"]) -> None:
        """Sets the logits of the tokens that may not come next to minus infinity."""

    def accept(self, token: int) -> None:
        """Moves on by a token that was chosen. Raises ValueError for one that may not come next."""

    @property
    def done(self) -> bool:
        """Whether nothing but an end may follow: the text is complete."""

    def copy(self) -> "Constraint":
        """One in the same place, which moves on by itself."""


class Grammar:
    """A constraint whose allowed tokens come from a matcher of ``llguidance``.

    Args:
        matcher: before the first token.
        ends: token ids that end a text; they are allowed where the text is complete. None: a text ends where
            it cannot go on, or where the caller stops.
        words: how many token ids the tokenizer has. Those of the model beyond are never allowed.
    """

    def __init__(self, matcher: "LLMatcher", ends: frozenset[int], words: int) -> None:
        self._matcher, self._ends, self._words = matcher, ends, words
        self._ended = False
        self._allowed: Tensor | None = None
        self._told = torch.zeros((words + 32) // 32, dtype=torch.int32)

    def mask_(self, logits: Float[Tensor, "vocab"]) -> None:
        """Sets the logits of the tokens that may not come next to minus infinity.

        Raises:
            ValueError: there is none that may, because the text is complete and no token ends it, or because
                the vocabulary cannot write what must follow.
        """
        if self.done and not self._ends:
            raise ValueError("the text is complete and no token ends it: look at done before each token.")
        allowed = self.allowed()[: len(logits)]
        logits[: len(allowed)].masked_fill_(~allowed.to(logits.device), -torch.inf)
        logits[len(allowed) :] = -torch.inf

    def allowed(self) -> Bool[Tensor, "words"]:
        """Which token ids may come next. Raises ValueError where none may and the text is not complete."""
        if self._allowed is not None:
            return self._allowed
        told = self._told
        self._matcher.unsafe_compute_mask_ptr(told.data_ptr(), 4 * len(told))
        if self._matcher.is_error():
            raise ValueError(
                "the constraint cannot be met: the tokens of this model cannot write what must follow. Give "
                "another pattern or schema."
            )
        bits = np.unpackbits(told.numpy().view(np.uint8), bitorder="little")
        # Beyond the tokenizer's ids lies the end that stands in where the model has none.
        self._allowed = torch.from_numpy(bits[: self._words].view(np.bool_))
        return self._allowed

    def accept(self, token: int) -> None:
        """Moves on by a token that was chosen.

        Raises:
            ValueError: one that may not come next.
        """
        if self._ended or token >= self._words or not self._matcher.consume_token(token):
            told = _first_line(self._matcher)
            if told.startswith("lexer error"):  # which a token that may not come is not
                raise ValueError(f"the constraint is too large to keep to ({told}). Give a shorter one.")
            raise ValueError(
                f"token {token} breaks the constraint. Choose among those that mask_ leaves, and stop when "
                "the text has ended."
            )
        self._ended, self._allowed = token in self._ends, None

    @property
    def done(self) -> bool:
        """Whether nothing but an end may follow."""
        if self._ended or not self._matcher.is_accepting():
            return self._ended
        if self._matcher.is_stopped():
            return True
        allowed = self.allowed()
        return int(allowed.sum()) == sum(bool(allowed[end]) for end in self._ends)

    @property
    def complete(self) -> bool:
        """Whether the text might end here."""
        return self._ended or self._matcher.is_accepting()

    def copy(self) -> "Grammar":
        """One in the same place, which moves on by itself."""
        twin = Grammar(self._matcher.deep_copy(), self._ends, self._words)
        twin._ended = self._ended
        return twin


def regex(pattern: str, tokenizer: "Tokenizer", ends: Sequence[int] = ()) -> Grammar:
    """A constraint to texts that as a whole match a regular expression.

    The syntax is that of Rust's ``regex``, as good as Python's ``re`` without look-around, back references
    and anchors in the middle; ``*?`` is as greedy as ``*``. ``\\d``, ``\\w`` and ``\\s`` are those of ASCII.

    Raises:
        ValueError: a pattern that cannot be read or that no text of these tokens matches, or a tokenizer
            whose tokens do not write bytes of their own.
    """
    library = _library()
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:  # which the library would drop
        raise ValueError("this regular expression cannot be used: it ends in a single backslash")
    # The library's Unicode is newer than Python's: of its digits some would be none to ``re``.
    made = library.LLMatcher.grammar_from_lark(f"start: /{library.regex_to_lark(pattern, 'dws')}/")
    return _grammar(made, tokenizer, ends, "regular expression")


def json_schema(
    schema: Mapping[str, Any] | bool, tokenizer: "Tokenizer", ends: Sequence[int] = ()
) -> Grammar:
    """A constraint to JSON that is valid by a schema; ``True`` or ``{}`` takes any JSON.

    Keys come in the order of the schema. Between the parts may stand a space, or one or two line breaks and
    up to 20 spaces or tabs.

    Raises:
        ValueError: a schema that nothing fulfils, that uses a keyword which cannot be kept to while writing
            (``not``, ``uniqueItems`` and the like, named), or that refers to something outside; a tokenizer
            as in ``regex``.
    """
    library = _library()
    if not isinstance(schema, Mapping | bool):
        raise ValueError(f"a JSON schema is an object or true; got a {type(schema).__name__}.")
    if schema is False:
        raise ValueError("the JSON schema false is fulfilled by nothing. Give an object, or true.")
    options = {"whitespace_pattern": _SPACE}
    told = {} if schema is True else dict(schema)
    made = library.LLMatcher.grammar_from_json_schema(told, overrides=options)
    return _grammar(made, tokenizer, ends, "JSON schema")


def json_object(tokenizer: "Tokenizer", ends: Sequence[int] = ()) -> Grammar:
    """A constraint to any JSON object."""
    return json_schema({"type": "object"}, tokenizer, ends)


def _grammar(made: str, tokenizer: "Tokenizer", ends: Sequence[int], what: str) -> Grammar:
    library = _library()
    vocabulary, words, known = _vocabulary(tokenizer, tuple(sorted(set(ends))))
    matcher = library.LLMatcher(vocabulary, made, log_level=0, limits=_limits())
    if matcher.is_error():
        raise ValueError(f"this {what} cannot be used: {_first_line(matcher)}")
    found = Grammar(matcher, known, words)
    if not found.done:
        found.allowed()
    return found


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: "Tokenizer", given: tuple[int, ...]) -> tuple["LLTokenizer", int, frozenset[int]]:
    """The tokens as the library wants them, how many there are, and which of them end a text.

    A second is spent once a tokenizer.
    """
    library = _library()
    tokens = token_bytes(tokenizer)
    words = len(tokens)
    # Some checkpoints name an end that their tokenizer does not know: it is never written.
    ends = [end for end in given if 0 <= end < words]
    for end in ends:
        tokens[end] = b""
    places = {token: i for i, token in reversed(list(enumerate(tokens))) if token}

    class Spelling:
        """What the library asks a tokenizer for."""

        eos_token_id = ends[0] if ends else words
        bos_token_id = None

        def __init__(self) -> None:
            self.special_token_ids = [i for i, token in enumerate([*tokens, b""]) if not token]
            # What writes nothing gets a name, which the library tells from text by the list above.
            self.tokens = [token or f"<{i}>".encode() for i, token in enumerate([*tokens, b""])]

        def __call__(self, text: bytes | str) -> list[int]:
            """Token ids of a text, for where only one text can follow."""
            return _spelled(tokenizer, tokens, places, text)

    wrapped = library.TokenizerWrapper(Spelling())
    return library.LLTokenizer(wrapped, eos_token=ends or [words]), words, frozenset(ends)


def _spelled(
    tokenizer: "Tokenizer", tokens: list[bytes], places: dict[bytes, int], text: bytes | str
) -> list[int]:
    """Token ids that write a text in the middle of another: the tokenizer's own, or the longest that fit.

    A tokenizer may begin a text with a space of its own. Empty where its tokens cannot write the text.
    """
    raw = text.encode() if isinstance(text, str) else text
    try:
        ids = tokenizer.encode(raw.decode(), add_special_tokens=False).ids
    except UnicodeDecodeError:
        ids = []
    if b"".join(tokens[i] for i in ids) == raw:
        return ids
    longest, found, start = max(map(len, places), default=0), [], 0
    while start < len(raw):
        pieces = (raw[start : start + n] for n in range(min(longest, len(raw) - start), 0, -1))
        piece = next((piece for piece in pieces if piece in places), None)
        if piece is None:
            return []
        found.append(places[piece])
        start += len(piece)
    return found


def _limits() -> Any:
    return _library().LLParserLimits(verbose_errors=False)


def _first_line(matcher: "LLMatcher") -> str:
    """What stands against a grammar, in a line."""
    return " ".join(matcher.get_error().split())[:300] or "nothing can follow"


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise ImportError(
            "a constraint on the output needs the package llguidance", name="llguidance"
        ) from None
    return llguidance

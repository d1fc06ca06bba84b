"""What each token id of a tokenizer writes, as bytes: what a constraint on the text is checked against."""

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_KNOWN = {"ByteLevel", "ByteFallback", "Replace", "Metaspace", "Fuse", "Strip", "Sequence"}


def token_bytes(tokenizer: "Tokenizer") -> list[bytes]:
    """The bytes of each token id, one after the other; empty for ids that write no text, special ones too.

    Three ways of spelling are known: letters that stand for bytes (byte-level BPE), pieces with ``<0x0A>``
    for single bytes and a mark for spaces (byte fallback, Kudo and Richardson 2018, arXiv 1808.06226), and
    tokens that are their own text.

    Raises:
        ValueError: another way, in which what a token writes depends on its neighbours.
    """
    steps = _decoders(tokenizer)
    kinds = {step["type"] for step in steps}
    if not kinds or not kinds <= _KNOWN:
        named = ", ".join(sorted(kinds - _KNOWN)) or "none"
        raise ValueError(
            "a constraint needs a tokenizer whose tokens each write bytes of their own (byte-level BPE, byte "
            f"fallback, or characters); this one decodes by {named}. Generate without a constraint."
        )
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    found = [b""] * (max(vocabulary.values(), default=-1) + 1)
    letters = byte_of_letter()
    for text, i in vocabulary.items():
        if i in added and added[i].special:
            continue
        if "ByteLevel" in kinds and all(letter in letters for letter in text):
            found[i] = bytes(letters[letter] for letter in text)
        elif "ByteFallback" in kinds and (match := _BYTE.fullmatch(text)):
            found[i] = bytes([int(match[1], 16)])
        else:
            found[i] = _written(text, steps).encode()
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown in vocabulary:
        found[vocabulary[unknown]] = b""
    return found


@lru_cache(maxsize=1)
def byte_of_letter() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for: printable ones themselves, the rest moved.

    Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2.
    """
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + i): byte for i, byte in enumerate(moved)}


def _decoders(tokenizer: "Tokenizer") -> list[dict[str, Any]]:
    """The steps of the tokenizer's decoder, in their order."""
    if tokenizer.decoder is None:
        return []
    step = json.loads(tokenizer.decoder.__getstate__())
    return step["decoders"] if step["type"] == "Sequence" else [step]


def _written(text: str, steps: list[dict[str, Any]]) -> str:
    """A token as it reads in the middle of a text."""
    for step in steps:
        if step["type"] == "Metaspace":
            text = text.replace(step["replacement"], " ")
        elif step["type"] == "Replace":
            pattern, content = step["pattern"], step["content"]
            if "String" in pattern:
                text = text.replace(pattern["String"], content)
            else:
                text = re.sub(pattern["Regex"], content, text)
    return text

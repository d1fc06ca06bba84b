"""Text: files, folders and the documentation that ships with Python, as bytes or as byte-pair tokens."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data._packed import IGNORED as IGNORED
from hippodrome.data._packed import Document, packed_task
from hippodrome.data.base import Task, fault, mixed
from hippodrome.shapes import TokenBatch
from hippodrome.text.folder import Words, byte_words
from hippodrome.text.folder import encode as encode_all
from hippodrome.text.folder import read as read_words
from hippodrome.text.plain import with_ends

SUFFIXES = (
    ".txt",
    ".md",
    ".rst",
    ".tex",
    ".py",
    ".html",
    ".xml",
    ".json",
    ".jsonl",
    ".log",
    ".c",
    ".h",
    ".toml",
)


class Window(NamedTuple):
    """One item of a text: tokens and their successors, (t,) each; IGNORED where the text has ended."""

    tokens: Tensor
    targets: Tensor


class RandomWindows(Dataset):
    """Windows of ``length`` tokens at offsets that look random: item i is the same on every visit.

    The set is virtual: it holds more items than the text has windows, so that a run of many epochs keeps
    seeing new offsets, and it has no state, so that a resumed run sees the same ones.
    """

    def __init__(self, tokens: np.ndarray, length: int, seed: int) -> None:
        self.tokens, self.length, self.seed = tokens, length, seed

    def __len__(self) -> int:
        return max(2**17, len(self.tokens) // self.length)

    def __getitem__(self, index: int) -> Window:
        start = mixed(self.seed, index) % (len(self.tokens) - self.length)
        piece = torch.from_numpy(self.tokens[start : start + self.length + 1].astype(np.int64))
        return Window(piece[:-1], piece[1:])


class ContiguousWindows(Dataset):
    """Windows end to end: every token of the text but the first is a target exactly once."""

    def __init__(self, tokens: np.ndarray, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return math.ceil((len(self.tokens) - 1) / self.length)

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.length
        piece = torch.from_numpy(self.tokens[start : start + self.length + 1].astype(np.int64))
        tokens, targets = torch.zeros(self.length, dtype=torch.int64), torch.full((self.length,), IGNORED)
        tokens[: len(piece) - 1], targets[: len(piece) - 1] = piece[:-1], piece[1:]
        return Window(tokens, targets)


def collate(items: list[Window]) -> TokenBatch:
    """Windows of one length to a batch (b, t)."""
    return TokenBatch(
        torch.stack([item.tokens for item in items]), torch.stack([item.targets for item in items])
    )


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose token ids are the bytes of the text in UTF-8: 256 tokens, nothing unknown."""
    tokenizer = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in _letters()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """A byte-pair encoding (Sennrich, Haddow, Birch 2016, arXiv 1508.07909) learned from ``text``.

    It starts from the 256 bytes, so that nothing is unknown. It may end with fewer tokens than asked where
    the text has no more pairs to merge.
    """
    if vocab_size < 256:
        raise ValueError(
            f"a byte-pair tokenizer holds the 256 bytes and merges of them: its vocabulary is 256 or more; "
            f"got {vocab_size}. Ask for 256 or more, or take tokenizer='bytes'."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_pieces(text), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The token ids of a text, in the smallest type that holds them."""
    if is_bytes(tokenizer):
        return np.frombuffer(text.encode(), dtype=np.uint8)
    kind: Any = np.uint16 if max(tokenizer.get_vocab().values(), default=0) < 2**16 else np.int32
    none = np.zeros(0, dtype=kind)
    return np.concatenate(
        [none]
        + [
            np.array(tokenizer.encode(piece, add_special_tokens=False).ids, dtype=kind)
            for piece in _pieces(text)
        ]
    )


def is_bytes(tokenizer: Tokenizer) -> bool:
    """Whether token ids are plain bytes, so that encoding is a copy."""
    return tokenizer.get_vocab() == {letter: byte for byte, letter in _letters()}


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """How many bytes of text each token id stands for: what turns nats per token into bits per byte.

    Exact for byte-level vocabularies, whose tokens are spelt with one letter a byte; a token of another kind
    counts the bytes of its own spelling.
    """
    letters = {letter for _, letter in _letters()}
    vocabulary = tokenizer.get_vocab()
    # Some vocabularies leave out numbers.
    lengths = np.ones(max(vocabulary.values(), default=-1) + 1, dtype=np.int64)
    for token, index in vocabulary.items():
        lengths[index] = len(token) if letters.issuperset(token) else len(token.encode())
    return lengths


def open_text(
    path: str | Path,
    *,
    length: int = 256,
    tokenizer: str | int = "bytes",
    separator: str | None = None,
    seed: int = 0,
) -> Task:
    """A language task from a text file, or from all text files of a folder in the order of their names.

    The text is cut once, at characters: the first 90 % to train, 5 % to validate, 5 % to test. With a
    separator it is documents, which are packed into rows and start afresh each; 5 % of them, drawn, validate
    and 5 % test.

    Args:
        path: a file in UTF-8, or a folder of such files (searched to any depth; names with a dot in front and
            files that are not text are left out).
        length: tokens a window.
        tokenizer: "bytes", the size of a vocabulary to learn from the train part (an integer), the path of a
            ``tokenizer.json``, or a folder with one.
        separator: what stands between documents, such as "<|endoftext|>"; None reads one long text.
        seed: of the offsets of the train windows.

    Raises:
        ValueError: no such file, an empty one, one that is not UTF-8, or a text too short for the windows.
    """
    path = Path(path)
    if path.is_dir():
        text, count = _read_folder(path)
    else:
        text, count = read_file(path), 1
    details = {"source": str(path), "files": count}
    if separator is not None:
        return _separated(text, separator, path, length, tokenizer, seed, details)
    return _task(text, path.stem, details, path, length, tokenizer, seed)


def open_python_docs(*, length: int = 256, tokenizer: str | int = "bytes", seed: int = 0) -> Task:
    """A language task from the documentation text that ships with this Python (``pydoc_data.topics``).

    About 460 kB in Python 3.11; the text differs from one version of Python to the next, which ``details``
    names. Needs no download.
    """
    import platform
    from importlib import import_module

    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    text = "\n\n".join(topics[name] for name in sorted(topics))
    source = {"source": f"documentation of Python {platform.python_version()}", "topics": len(topics)}
    return _task(text, "python-docs", source, "python-docs", length, tokenizer, seed)


def _task(
    text: str,
    name: str,
    source: dict[str, Any],
    where: str | Path,
    length: int,
    tokenizer: str | int,
    seed: int,
) -> Task:
    if not text.strip():
        raise fault(where, "a text", "an empty one", "Name a file or folder that holds text.")
    if length < 1:
        raise ValueError(f"a window holds at least one token; got length {length}. Ask for length 1 or more.")
    cut = [int(len(text) * share) for share in (0.0, 0.9, 0.95, 1.0)]
    parts = [text[low:high] for low, high in pairwise(cut)]
    words = choose_words(tokenizer, parts[0])
    chosen = words.tokenizer
    tokens = [encode(chosen, part) for part in parts]
    if len(tokens[0]) <= length or min(len(part) for part in tokens) < 2:
        raise fault(
            where,
            f"more than {length} tokens to train on (90 % of the text) and 2 in each of the other parts",
            f"{len(tokens[0])}, {len(tokens[1])} and {len(tokens[2])}",
            f"Give a longer text, or a length below {max(1, len(tokens[0]))}.",
        )
    sizes = [len(part.encode()) for part in parts]
    ratios = [size / len(part) for size, part in zip(sizes, tokens, strict=True)]
    details = {
        **source,
        "tokenizer": "bytes" if is_bytes(chosen) else f"byte pairs, {chosen.get_vocab_size()} tokens",
        "bytes": {"train": sizes[0], "valid": sizes[1], "test": sizes[2]},
        "tokens": {"train": len(tokens[0]), "valid": len(tokens[1]), "test": len(tokens[2])},
        "bytes_per_token": dict(zip(("train", "valid", "test"), ratios, strict=True)),
        "window": length,
        "split": "90/5/5 % of the characters, contiguous",
    }
    lengths = token_bytes(chosen)
    return Task(
        kind="language",
        name=name,
        train=RandomWindows(tokens[0], length, seed),
        valid=ContiguousWindows(tokens[1], length),
        test=ContiguousWindows(tokens[2], length),
        collate=collate,
        facts={"vocab_size": len(lengths), "bytes_per_token": 1.0 if is_bytes(chosen) else lengths.tolist()},
        tokenizer=chosen,
        details=details,
        naive=lambda: {"unigram": _unigram(tokens[0], tokens[2], lengths)},
        words=words,
    )


def _separated(
    text: str,
    separator: str,
    where: Path,
    length: int,
    tokenizer: str | int,
    seed: int,
    details: dict[str, Any],
) -> Task:
    """Documents between separators, each with the token that ends a text behind it."""
    if not separator:
        raise ValueError("a separator is the text between documents; got an empty one. Leave it out.")
    pieces = [piece for piece in text.split(separator) if piece.strip()]
    words = with_ends(choose_words(tokenizer, text))
    documents = []
    for piece in pieces:
        found = encode(words.tokenizer, piece) if is_bytes(words.tokenizer) else encode_all(words, piece)
        ids = np.append(np.asarray(found, dtype=np.int32), np.int32(words.ends[0]))
        documents.append(Document(ids, np.ones(len(ids), bool)))
    return packed_task(
        documents,
        words,
        where,
        length=length,
        valid=0.05,
        seed=seed,
        lengths=token_bytes(words.tokenizer),
        details={**details, "separator": separator},
    )


def _unigram(train: np.ndarray, test: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Cross-entropy of the test tokens under the train frequencies, one added to each count."""
    counts = np.bincount(train, minlength=len(lengths)) + 1.0
    targets = test[1:]
    nats = float(-np.log(counts / counts.sum())[targets].mean())
    return {
        "nats": nats,
        "bits_per_byte": nats / math.log(2) / float(lengths[targets].mean()),
        "accuracy": float((targets == counts.argmax()).mean()),
    }


def choose_tokenizer(choice: str | int, text: str) -> Tokenizer:
    """The tokenizer that an option asks for: bytes, one learned from ``text``, or one in a file or folder."""
    return choose_words(choice, text).tokenizer


def choose_words(choice: str | int, text: str) -> Words:
    """The same with its special tokens and chat template, where a folder is named that has them."""
    if isinstance(choice, int) or choice.isdigit():
        return byte_words(train_tokenizer(text, int(choice)))
    if choice == "bytes":
        return byte_words(byte_tokenizer())
    path = Path(choice)
    if path.name == "tokenizer.json" or path.is_dir():
        words = read_words(path if path.is_dir() else path.parent)
        if words is not None:
            return words
    if not path.is_file():
        raise ValueError(
            f"a tokenizer is 'bytes', the size of a vocabulary to learn, the path of a tokenizer.json, or a "
            f"folder with one; got {choice!r}, which is none of these. Correct the path, or take 'bytes'."
        )
    return byte_words(Tokenizer.from_file(choice))


def read_file(path: Path) -> str:
    """The text of a file in UTF-8; raises ValueError that names line and byte where it is none."""
    raw = path.read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise fault(
            f"{path}, line {line}",
            "text in UTF-8",
            f"byte 0x{raw[error.start]:02x} at position {error.start}",
            "Convert the file to UTF-8.",
        ) from None


def _read_folder(folder: Path) -> tuple[str, int]:
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not files:
        raise fault(
            folder,
            f"text files ({', '.join(SUFFIXES)})",
            "none",
            "Name a folder that holds some, or one file.",
        )
    return "\n".join(read_file(file) for file in files), len(files)


def _pieces(text: str, size: int = 2**16) -> Iterator[str]:
    """The text in pieces that end at line breaks, so that no word is cut and memory stays bounded."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            newline = text.rfind("\n", start, end)
            end = newline + 1 if newline > start else end
        yield text[start:end]
        start = end


def _letters() -> Iterable[tuple[int, str]]:
    """The visible letter that stands for each byte in a byte-level vocabulary (the convention of GPT-2)."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return [(byte, chr(byte)) for byte in visible] + [(byte, chr(256 + i)) for i, byte in enumerate(hidden)]

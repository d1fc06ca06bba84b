"""Tokens with places hidden or changed, to be told from those around them: text, and what it shares with DNA.

The pretext in ``data/pretext.py`` hides steps of sequences that belong to a labelled task, to train a
backbone that goes on to that task. Here filling in is the task itself: a text of any length is read in
windows, a place that is asked for may also be changed or left as it is, and the model keeps its head.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, mixed
from hippodrome.data.pretext import check, mask
from hippodrome.data.text import IGNORED, open_python_docs, open_text
from hippodrome.shapes import TokenBatch

RATE = 0.15
"""Share of the places that are asked for (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""
CORRUPTION = (0.8, 0.1, 0.1)
"""Of those, how many read as hidden, as some other token, and as they are (ibid.)."""
LENGTH = 256


class Masking(NamedTuple):
    """Which places are asked for and what is read there.

    ``rate``: share of the places. ``span``: how many stand together; None for each by itself. ``hidden`` and
    ``changed``: shares of the places asked that read as ``mask_token``, and as any of ``letters``; the others
    read as they are. ``letters``: the token ids that are asked for.
    """

    rate: float
    span: int | None
    hidden: float
    changed: float
    mask_token: int
    letters: np.ndarray


class Stream(NamedTuple):
    """Token ids laid end to end (n,), and where the pieces begin, in order, the first at 0."""

    tokens: np.ndarray
    begins: np.ndarray


class MaskedWindow(NamedTuple):
    """What is read (t,), the token asked for at each place or IGNORED, and whether a piece begins there."""

    tokens: Tensor
    targets: Tensor
    begins: Tensor


def hide(tokens: np.ndarray, masking: Masking, seed: int) -> tuple[Tensor, Tensor]:
    """What is read in place of tokens (t,), and what is asked: a function of its arguments.

    Each place is chosen as by ``pretext.mask``, but for tokens that are never asked for; where none is
    chosen, one is.
    """
    ids = torch.from_numpy(tokens.astype(np.int64))
    letters = torch.from_numpy(masking.letters)
    fit = torch.isin(ids, letters)
    asked = mask(len(ids), masking.rate, masking.span, mixed(seed, 0)) & fit
    if not asked.any() and fit.any():
        asked[fit.nonzero()[mixed(seed, 1) % int(fit.sum()), 0]] = True
    numbers = torch.Generator().manual_seed(mixed(seed, 2))
    kind = torch.rand(len(ids), generator=numbers)
    other = letters[torch.randint(len(letters), (len(ids),), generator=numbers)]
    read = torch.where(kind < masking.hidden, masking.mask_token, ids)
    read = torch.where((kind >= masking.hidden) & (kind < masking.hidden + masking.changed), other, read)
    return torch.where(asked, read, ids), torch.where(asked, ids, IGNORED)


class FreshWindows(Dataset):
    """Windows at offsets that look random, other places hidden in each: what training reads.

    Offset and mask of item i are a function of the seed and i. The set is virtual, as
    ``text.RandomWindows``, and renews itself: on a later visit item i is another window.
    """

    renewed = True

    def __init__(self, stream: Stream, length: int, masking: Masking, seed: int) -> None:
        self.stream, self.length, self.masking, self.seed = stream, length, masking, seed
        self.begins = _marks(stream)

    def __len__(self) -> int:
        return max(2**17, len(self.stream.tokens) // self.length)

    def __getitem__(self, index: int) -> MaskedWindow:
        if index < 0:
            raise IndexError(index)
        start = mixed(self.seed, index) % (len(self.stream.tokens) - self.length + 1)
        piece = self.stream.tokens[start : start + self.length]
        read, targets = hide(piece, self.masking, mixed(self.seed + 1, index))
        return MaskedWindow(read, targets, self.begins[start : start + self.length].clone())


class FixedWindows(Dataset):
    """Windows end to end, the same places hidden on every visit: what is validated and tested on.

    Which places are hidden is a matter of the tokens and the seed, not of the windows: at any length the same
    places are asked for, each once, and a comparison of lengths compares nothing else. The last window ends
    with the tokens, and asks only what the one before it did not.
    """

    def __init__(self, stream: Stream, length: int, masking: Masking, seed: int) -> None:
        self.length = min(length, len(stream.tokens))
        self.read, self.targets = (part.int() for part in hide(stream.tokens, masking, seed))
        self.begins = _marks(stream)

    def __len__(self) -> int:
        return math.ceil(len(self.read) / self.length)

    def __getitem__(self, index: int) -> MaskedWindow:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * self.length
        start = min(first, len(self.read) - self.length)
        piece = slice(start, start + self.length)
        targets = self.targets[piece].long()
        targets[: first - start] = IGNORED
        return MaskedWindow(self.read[piece].long(), targets, self.begins[piece].clone())


def _marks(stream: Stream) -> Tensor:
    """Where the pieces begin, as marks (n,)."""
    marks = torch.zeros(len(stream.tokens), dtype=torch.bool)
    marks[torch.from_numpy(np.asarray(stream.begins, dtype=np.int64))] = True
    return marks


def collate(items: list[MaskedWindow]) -> TokenBatch:
    """Windows of one length to a batch (b, t), with resets where a piece begins inside one."""
    resets = torch.stack([item.begins for item in items])
    resets[:, 0] = False  # where every row begins anyway
    return TokenBatch(
        torch.stack([item.tokens for item in items]),
        torch.stack([item.targets for item in items]),
        resets if bool(resets.any()) else None,
    )


def open_masked_text(
    path: str | Path,
    *,
    length: int = LENGTH,
    tokenizer: str | int = "bytes",
    seed: int = 0,
    mask_rate: float = RATE,
    eval_rate: float = RATE,
    span: int | None = None,
    corruption: list[float] | None = None,
) -> Task:
    """A text, read and cut as by ``text.open_text``, with places to be filled in from both sides.

    Args:
        path: a file in UTF-8, or a folder of such files.
        length: tokens a window.
        tokenizer: "bytes", the size of a vocabulary to learn, or the path of a ``tokenizer.json``.
        seed: of the offsets and the masks.
        mask_rate: share of the places that are asked for in training.
        eval_rate: the same in validation and test.
        span: how many places stand together; None for each by itself.
        corruption: of the places asked, the shares that read as hidden, as any token, and as they are; None
            takes 0.8, 0.1, 0.1.

    Raises:
        ValueError: what ``open_text`` raises, or rates, a span or shares that cannot be.
    """
    task = open_text(path, length=length, tokenizer=tokenizer, seed=seed)
    return _of_text(task, length, seed, mask_rate, eval_rate, span, corruption)


def open_masked_python_docs(
    *,
    length: int = LENGTH,
    tokenizer: str | int = "bytes",
    seed: int = 0,
    mask_rate: float = RATE,
    eval_rate: float = RATE,
    span: int | None = None,
    corruption: list[float] | None = None,
) -> Task:
    """The documentation text that ships with this Python; arguments as of ``open_masked_text``."""
    task = open_python_docs(length=length, tokenizer=tokenizer, seed=seed)
    return _of_text(task, length, seed, mask_rate, eval_rate, span, corruption)


def _of_text(
    task: Task,
    length: int,
    seed: int,
    mask_rate: float,
    eval_rate: float,
    span: int | None,
    corruption: list[float] | None,
) -> Task:
    """A task of text whose next tokens are foretold, turned into one of hidden tokens."""
    vocab_size = task.facts["vocab_size"]
    parts: Any = (task.train, task.valid, task.test)
    return masked_task(
        task.name,
        [Stream(part.tokens, np.zeros(1, dtype=np.int64)) for part in parts],
        length,
        Masking(mask_rate, span, *shares(corruption)[:2], vocab_size, np.arange(vocab_size)),
        eval_rate,
        seed,
        facts=task.facts,
        tokenizer=task.tokenizer,
        details=task.details,
        lengths=task.facts["bytes_per_token"],
    )


def masked_task(
    name: str,
    streams: Sequence[Stream],
    length: int,
    masking: Masking,
    eval_rate: float,
    seed: int,
    *,
    facts: dict[str, Any],
    tokenizer: Any,
    details: dict[str, Any],
    lengths: float | list[int] = 1.0,
) -> Task:
    """A task of hidden tokens over streams to train on, to choose by and to report.

    Args:
        name: of the task.
        streams: three; the first is longer than ``length``.
        length: tokens a window.
        masking: of the train part.
        eval_rate: of the other parts.
        seed: of offsets and masks.
        facts: arguments of the model.
        tokenizer: of the tokens.
        details: of the report.
        lengths: bytes of a token, one for all or one of each.

    Raises:
        ValueError: a rate or a span that cannot be.
    """
    for rate in (masking.rate, eval_rate):
        check("masked", rate, masking.span)
    still = masking._replace(rate=eval_rate)
    parts = [FixedWindows(stream, length, still, seed + i) for i, stream in enumerate(streams[1:], 2)]
    kept = 1 - masking.hidden - masking.changed
    told = {
        "asked": {"train": masking.rate, "valid and test": eval_rate},
        "of these hidden, changed, kept": f"{masking.hidden:g}, {masking.changed:g}, {kept:g}",
        **({} if masking.span is None else {"span": masking.span}),
    }
    return Task(
        kind="masked_language",
        name=name,
        train=FreshWindows(streams[0], length, masking, seed),
        valid=parts[0],
        test=parts[1],
        collate=collate,
        facts=facts,
        tokenizer=tokenizer,
        details={**details, **told},
        naive=lambda: {"unigram": _unigram(streams[0].tokens, parts[1].targets.numpy(), lengths)},
    )


def shares(corruption: Sequence[float] | None) -> tuple[float, float, float]:
    """The three shares of the places asked; raises ValueError where they are none."""
    given = CORRUPTION if corruption is None else tuple(float(share) for share in corruption)
    if len(given) != 3 or min(given) < 0 or abs(sum(given) - 1) > 1e-9:
        raise ValueError(
            f"corruption is three shares that add up to 1, of the places asked that read as hidden, as some "
            f"other token, and as they are; got {list(given)}. Take [0.8, 0.1, 0.1]."
        )
    return given  # type: ignore[return-value]


def cut(tokens: np.ndarray, begins: np.ndarray) -> list[Stream]:
    """A stream in three: the first 90 % of the tokens, 5 %, 5 %. A cut begins a piece."""
    ends = [int(len(tokens) * share) for share in (0.0, 0.9, 0.95, 1.0)]
    streams = []
    for low, high in pairwise(ends):
        inside = begins[(begins > low) & (begins < high)] - low
        streams.append(Stream(tokens[low:high], np.concatenate([[0], inside]).astype(np.int64)))
    return streams


def _unigram(train: np.ndarray, targets: np.ndarray, lengths: float | list[int]) -> dict[str, float]:
    """Cross-entropy of what is asked under the train frequencies, one added to each count."""
    asked = targets[targets != IGNORED]
    counts = np.bincount(train, minlength=int(max(train.max(), asked.max())) + 1) + 1.0
    nats = float(-np.log(counts / counts.sum())[asked].mean())
    size: Callable[[np.ndarray], float] = lambda ids: float(np.mean(np.asarray(lengths)[ids]))  # noqa: E731
    bytes_of = float(lengths) if isinstance(lengths, int | float) else size(asked)
    return {
        "nats": nats,
        "bits_per_byte": nats / math.log(2) / bytes_of,
        "accuracy": float((asked == counts.argmax()).mean()),
    }

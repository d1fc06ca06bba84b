"""What a segment of a series says in words, and the features of such texts kept as long as they hold."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

ALPHABET = " ,-.0123456789acdeghilmnopstuv"
"""Every character that a prompt is made of, in order."""
MOST_BYTES = 2**28
"""What the kept features of one forecaster may take."""
_AT_ONCE = 2**14
"""Characters that the language model reads at once."""


def prompts(segments: Float[Tensor, "*any segment"]) -> list[str]:
    """The text of each segment, the last axis, in the order of the flattened others.

    Its length in steps, and of what was seen in it the mean, the standard deviation (population) and the
    change from first to last, with four decimals, in the units of the series: the four facts of the prompt of
    SMETimes. That one gives the time span by its two dates; a batch holds no dates, so here it is a number of
    steps. Nothing outside the segment is read.
    """
    rows = segments.detach().to("cpu", torch.float64).flatten(0, -2)
    steps = rows.shape[-1]
    seen = rows.isfinite()
    count = seen.sum(-1)
    values = torch.where(seen, rows, 0.0)
    mean = values.sum(-1) / count.clamp(min=1)
    deviation = torch.where(seen, rows - mean[:, None], 0.0).square().sum(-1).div(count.clamp(min=1)).sqrt()
    places = torch.arange(steps)
    first = torch.where(seen, places, steps - 1).amin(-1, keepdim=True)
    last = torch.where(seen, places, 0).amax(-1, keepdim=True)
    change = (values.gather(-1, last) - values.gather(-1, first))[:, 0]
    columns = (count.tolist(), mean.tolist(), deviation.tolist(), change.tolist())
    return [
        f"{steps} steps, mean {m:.4f}, deviation {d:.4f}, change {c:.4f}"
        if n
        else f"{steps} steps, no values"
        for n, m, d, c in zip(*columns, strict=True)
    ]


class Features:
    """The features of texts by a reader that does not change, each computed once while it is remembered.

    They are a function of the text alone, so what is remembered is forgotten where a weight of the reader is
    another one, and goes neither into files nor into copies. When ``MOST_BYTES`` are full, what came first
    goes first.
    """

    def __init__(self) -> None:
        self._marks: tuple = ()
        self._slots: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._table = torch.empty(0, 0)
        self._next = 0

    def __deepcopy__(self, memo: dict) -> "Features":
        return Features()

    def __reduce__(self) -> tuple:
        return Features, ()

    def __len__(self) -> int:
        return len(self._slots)

    def of(
        self, texts: Sequence[str], weights: Iterable[Tensor], read: Callable[[list[str]], Tensor]
    ) -> Float[Tensor, "n d"]:
        """The features of each text; ``read`` computes those of new ones, with ``weights``."""
        marks = tuple(_mark(weight) for weight in weights)
        if marks != self._marks:
            self._marks, self._next, self._table = marks, 0, torch.empty(0, 0)
            self._slots.clear()
            self._texts.clear()
        places: dict[str, int] = {}
        order = [places.setdefault(text, len(places)) for text in texts]
        distinct = list(places)
        new = [text for text in distinct if text not in self._slots]
        # Tensors of inference mode could not be read in training.
        with torch.inference_mode(False), torch.no_grad():
            if not new:
                found = self._table[[self._slots[text] for text in distinct]]
            else:
                made = read(new)
                found = made.new_empty(len(distinct), made.shape[1])
                old = [text for text in distinct if text in self._slots]
                if old:
                    found[[places[text] for text in old]] = self._table[[self._slots[text] for text in old]]
                found[[places[text] for text in new]] = made
                self._keep(new, made)
            return found[torch.tensor(order, device=found.device)]

    def _keep(self, texts: list[str], made: Tensor) -> None:
        most = max(1, MOST_BYTES // (made.shape[1] * made.element_size()))
        texts, made = texts[-most:], made[-most:]
        while len(self._table) < min(most, self._next + len(texts)):
            room = min(most, max(1024, 2 * len(self._table)))
            old = self._table.to(made).view(-1, made.shape[1])
            self._table = torch.cat([old, made.new_empty(room - len(old), made.shape[1])])
        slots = [(self._next + i) % len(self._table) for i in range(len(texts))]
        for slot, text in zip(slots, texts, strict=True):
            before = self._texts.get(slot)
            if before is not None:
                del self._slots[before]
            self._texts[slot], self._slots[text] = text, slot
        self._table[slots] = made
        self._next = (slots[-1] + 1) % most


def read_last(
    features: Callable[[Tensor], Tensor], texts: list[str], ids: dict[str, int], device: torch.device
) -> Float[Tensor, "n d"]:
    """The last feature of each text: what a causal reader says once it has read all of it.

    Texts of about one length are read together, each filled up on its right, where nobody looks back.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    size = max(1, _AT_ONCE // len(texts[order[-1]]))
    found = []
    for start in range(0, len(order), size):
        rows = [texts[i] for i in order[start : start + size]]
        longest = len(rows[-1])
        codes = torch.tensor([[ids[c] for c in row] + [0] * (longest - len(row)) for row in rows])
        ends = torch.tensor([len(row) - 1 for row in rows], device=device)
        found.append(features(codes.to(device))[torch.arange(len(rows), device=device), ends])
    back = torch.empty(len(texts), dtype=torch.int64)
    back[order] = torch.arange(len(texts))
    return torch.cat(found)[back.to(device)]


def spelt(spelling: list[int] | None, vocab_size: int) -> dict[str, int]:
    """The token id of each character of ``ALPHABET``: its byte, where no ids are given.

    Raises:
        ValueError: another number of ids, or one beyond the vocabulary.
    """
    ids = [ord(letter) for letter in ALPHABET] if spelling is None else spelling
    if len(ids) != len(ALPHABET) or not all(0 <= one < vocab_size for one in ids):
        raise ValueError(
            f"the spelling of prompts holds a token id below {vocab_size} for each of the {len(ALPHABET)} "
            f"characters {ALPHABET!r}; got {len(ids)} ids, {max(ids, default=0)} the largest. Take them from "
            "the tokenizer of the language model."
        )
    return dict(zip(ALPHABET, ids, strict=True))


def spelling_of(encode: Callable[[str], list[int]]) -> list[int]:
    """The token id of each character by a tokenizer that has one for it.

    Raises:
        ValueError: a character that is not one token.
    """
    found = [encode(letter) for letter in ALPHABET]
    for letter, ids in zip(ALPHABET, found, strict=True):
        if len(ids) != 1:
            raise ValueError(
                f"prompts are spelt with a token for each character, and this tokenizer makes {len(ids)} of "
                f"{letter!r}. Take a language model that reads bytes, or byte-level pairs."
            )
    return [ids[0] for ids in found]


def _mark(weight: Tensor) -> tuple:
    """What tells that a weight is still the same: where it lies, what it is, how often it was written."""
    version = -1 if weight.is_inference() else weight._version
    return weight.data_ptr(), weight.dtype, version

"""A cache of states by the tokens that were read: a text that begins as an earlier one is not read again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hippodrome.generate.decoder import owned
from hippodrome.generate.rows import bytes_of


class Hit(NamedTuple):
    """The longest beginning that is known. State and logits are the cache's own: never overwrite them."""

    length: int
    """How many of the tokens it covers."""
    state: tuple
    """After them."""
    logits: Float[Tensor, "b vocab"]
    """After the last of them."""


class Counts(NamedTuple):
    """What a cache has done and holds."""

    hits: int
    misses: int
    entries: int
    bytes: int
    evictions: int


class _Entry(NamedTuple):
    ids: bytes
    state: tuple
    logits: Tensor
    size: int


class PrefixCache:
    """States after token ids, as many as a budget of bytes holds; the least recently used go first.

    Bytes are those of the states, logits and ids, each held in memory of its own. Several threads may use it.

    Args:
        budget_bytes: what the entries may take together; 0 keeps none.

    Raises:
        ValueError: a negative budget.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise ValueError(f"the budget of a cache is 0 bytes or more; got {budget_bytes}.")
        self.budget = budget_bytes
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lengths: dict[int, int] = {}
        self._bytes = self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()

    def longest(self, ids: Sequence[int] | Tensor) -> Hit | None:
        """The longest beginning of these token ids whose state is known, the whole of them included."""
        raw = _raw(ids)
        with self._lock:
            found = None
            digest, start = hashlib.blake2b(digest_size=16), 0
            # One pass over the ids, with a look into the table at each length that some entry has.
            for length in sorted(n for n in self._lengths if 8 * n <= len(raw)):
                digest.update(raw[8 * start : 8 * length])
                key, start = digest.digest(), length
                entry = self._entries.get(key)
                if entry is not None and entry.ids == raw[: 8 * length]:
                    found = key
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(found)
            entry = self._entries[found]
            return Hit(len(entry.ids) // 8, entry.state, entry.logits)

    def put(self, ids: Sequence[int] | Tensor, state: tuple, logits: Float[Tensor, "b vocab"]) -> bool:
        """Keeps copies of the state and logits after these token ids; whether it did.

        One that is larger than the whole budget is not kept, nor one without a token; one that is there
        already counts as used.
        """
        raw = _raw(ids)
        size = bytes_of((state, logits)) + len(raw)
        if not raw or size > self.budget:
            return False
        key = hashlib.blake2b(raw, digest_size=16).digest()
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return True
        entry = _Entry(raw, owned(state), owned(logits), size)
        with self._lock:
            if key in self._entries:  # by another thread, while this one copied
                return True
            while self._bytes + size > self.budget:
                self._drop()
            self._entries[key] = entry
            self._bytes += size
            length = len(raw) // 8
            self._lengths[length] = self._lengths.get(length, 0) + 1
        return True

    def clear(self) -> None:
        """Forgets all entries; the counts of what was done stay."""
        with self._lock:
            self._entries.clear()
            self._lengths.clear()
            self._bytes = 0

    @property
    def counts(self) -> Counts:
        """What it has done and holds, at one moment."""
        with self._lock:
            return Counts(self._hits, self._misses, len(self._entries), self._bytes, self._evictions)

    def _drop(self) -> None:
        _, entry = self._entries.popitem(last=False)
        self._bytes -= entry.size
        self._evictions += 1
        length = len(entry.ids) // 8
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]


def _raw(ids: Any) -> bytes:
    """Token ids as bytes, 8 each."""
    if isinstance(ids, Tensor):
        ids = ids.detach().cpu().flatten().numpy()
    return np.ascontiguousarray(ids, dtype=np.int64).tobytes()

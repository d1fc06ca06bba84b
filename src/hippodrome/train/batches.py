"""Batches: which rows come when, as a pure function of seed and position, and how they reach the device."""

from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hippodrome.shapes import Batch

Collate = Callable[[list], Batch]


class Share(NamedTuple):
    """One process among those that train together."""

    rank: int = 0
    world: int = 1


class Shuffled(Sampler[list[int]]):
    """Endless batches of row numbers: shuffled epochs joined end to end, so that every batch is full.

    ``position`` counts the rows that all processes together have read since the start of the run. The order
    is a function of the seed alone, so a run continues from its position with nothing else to remember. With
    ``renewed`` row i of epoch e is the number e * rows + i, for data that shows something new each time.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, position: int, share: Share, renewed: bool = False
    ) -> None:
        if rows < 1:
            raise ValueError("there is nothing to train on: the training set is empty")
        self.rows, self.batch_size, self.seed, self.position, self.share = (
            rows,
            batch_size,
            seed,
            position,
            share,
        )
        self.renewed = renewed

    def __iter__(self) -> Iterator[list[int]]:
        start = self.position + self.share.rank * self.batch_size
        epoch, order = -1, torch.empty(0)
        while True:
            batch: list[int] = []
            while len(batch) < self.batch_size:
                now, offset = divmod(start + len(batch), self.rows)
                if now != epoch:
                    epoch, order = now, self.permutation(now) + now * self.rows * self.renewed
                batch += order[offset : offset + self.batch_size - len(batch)].tolist()
            yield batch
            start += self.batch_size * self.share.world

    def permutation(self, epoch: int) -> Tensor:
        """The order of the rows in an epoch."""
        return torch.randperm(self.rows, generator=torch.Generator().manual_seed((self.seed << 32) + epoch))


class InOrder(Sampler[list[int]]):
    """The rows once, in their order, for exact evaluation; processes take turns.

    With ``batches``, as many rows as fill them, spread evenly over the set: data that lies grouped, by class
    or by time, is then seen in all its parts. Every process gets as many batches, because sharded models talk
    in each: ``real`` says which are not there to fill up.
    """

    def __init__(self, rows: int, batch_size: int, batches: int | None, share: Share) -> None:
        count = rows if batches is None else min(rows, batches * batch_size)
        # The middle of each of ``count`` equal pieces; all rows where there are as many pieces.
        chosen = [(2 * i + 1) * rows // (2 * count) for i in range(count)]
        every = [chosen[i : i + batch_size] for i in range(0, count, batch_size)]
        rounds = -(-len(every) // share.world)
        mine = [i * share.world + share.rank for i in range(rounds)]
        self.real = [i < len(every) for i in mine]
        self.batches = [every[i if i < len(every) else 0] for i in mine]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def loader(
    dataset: Dataset, order: Sampler[list[int]], collate: Collate, workers: int, pin: bool
) -> DataLoader:
    """A loader of these batches. It has a generator of its own, so that it leaves PyTorch's alone."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),
    )


def rows(dataset: Dataset) -> int:
    """How many items a map-style data set has."""
    return len(cast(Sized, dataset))


def renewed(dataset: Dataset) -> bool:
    """Whether a data set shows something new on each visit, and so is told which visit it is."""
    return bool(getattr(dataset, "renewed", False))


def moved(batch: Any, device: torch.device) -> Any:
    """The batch (a NamedTuple) with its tensors on the device."""
    return type(batch)(
        *(part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in batch)
    )

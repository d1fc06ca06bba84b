"""A task made of the inputs of another's training part alone: steps to fill in, or to foretell.

Amos, Berant, Gupta 2023, arXiv 2310.02980 ("Never train from scratch"). No label, and no input that another
part validates or tests on, is read.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, mixed
from hippodrome.shapes import PretextBatch

Kind = Literal["masked", "causal"]
KINDS: tuple[str, ...] = get_args(Kind)
SOURCES = ("classification", "regression")
"""Kinds of task whose inputs can be pretrained on."""

_IGNORED = -100
_HELD = 0.1
"""Share of the training inputs that the pretext validates on, at most ``_MOST`` of them."""
_MOST = 512


class PretextItem(NamedTuple):
    """What may be read of one sequence, what is asked, and its time steps (t,) if any: a row of the batch."""

    inputs: Tensor
    targets: Tensor
    dt: Tensor | None = None


class Pretext(Dataset):
    """Sequences of another data set, of which steps are hidden and asked for, or the next step is asked for.

    Item i of visit v stands at v * len + i, and its mask is a function of the seed, v and i alone: a run that
    goes through the data several times hides other steps each time, and one that resumes hides what it would
    have hidden.

    Args:
        source: items with ``inputs``, values (t, c) or token ids (t,), and perhaps ``dt``; or pairs.
        chosen: which of its items.
        kind: "masked" or "causal".
        rate: share of the steps that are hidden.
        span: steps that are hidden together; None hides each step by itself.
        vocab_size: of token ids; the hidden ones read as this number. None for values.
        levels: values are whole numbers below this, asked for as such; None asks for numbers.
        seed: of the masks.
        pairs: items hold two sequences, ``first`` and ``second``: each is one here.
    """

    renewed = True
    """Items beyond the length are the same sequences on later visits."""

    def __init__(
        self,
        source: Dataset,
        chosen: Sequence[int],
        kind: Kind,
        rate: float,
        span: int | None,
        vocab_size: int | None,
        levels: int | None,
        seed: int,
        pairs: bool = False,
    ) -> None:
        self.source, self.chosen, self.kind = source, chosen, kind
        self.rate, self.span, self.seed = rate, span, seed
        self.vocab_size, self.levels = vocab_size, levels
        self.sides = ("first", "second") if pairs else ("inputs",)

    def __len__(self) -> int:
        return len(self.chosen) * len(self.sides)

    def __getitem__(self, index: int) -> PretextItem:
        if index < 0:
            raise IndexError(index)
        visit, place = divmod(index, len(self))
        place, side = divmod(place, len(self.sides))
        which = self.chosen[place]
        item: Any = self.source[which]
        inputs: Tensor = getattr(item, self.sides[side])
        if self.kind == "causal":
            read, targets = inputs, following(self._targets(inputs))
        else:
            seed = mixed(mixed(self.seed, visit), which * len(self.sides) + side)
            hidden = mask(len(inputs), self.rate, self.span, seed)
            read, targets = self._hide(inputs, hidden)
        return PretextItem(read, targets, getattr(item, "dt", None))

    def hides(self, index: int) -> bool:
        """Whether anything is asked for in an item."""
        targets = self[index].targets
        return bool((~targets.isnan() if targets.is_floating_point() else targets != _IGNORED).any())

    def _targets(self, inputs: Tensor) -> Tensor:
        """What could be asked of a sequence: its values, or its ids or levels (t,)."""
        if self.levels is None:
            return inputs
        values = inputs[:, 0]
        return torch.where(values.isnan(), _IGNORED, values.nan_to_num().long())

    def _hide(self, inputs: Tensor, hidden: Bool[Tensor, "t"]) -> tuple[Tensor, Tensor]:
        """A sequence without its hidden steps, and those steps alone."""
        targets = self._targets(inputs)
        if targets.is_floating_point():
            targets = torch.where(hidden[:, None], targets, float("nan"))
        else:
            targets = torch.where(hidden, targets, _IGNORED)
        if self.vocab_size is not None:
            return torch.where(hidden, self.vocab_size, inputs), targets
        shown = torch.where(hidden[:, None], float("nan"), inputs)
        return torch.cat([shown, hidden[:, None].to(inputs.dtype)], 1), targets


def mask(length: int, rate: float, span: int | None, seed: int) -> Bool[Tensor, "t"]:
    """Which of so many steps are hidden, a function of its arguments.

    Each with chance ``rate`` by itself; or, with ``span``, floor(length rate / span) stretches of that many
    steps, none over another, all places of them as likely.
    """
    numbers = torch.Generator().manual_seed(seed)
    if span is None:
        return torch.rand(length, generator=numbers) < rate
    count = int(length * rate / span + 1e-9)
    # Stretches as single places among the steps that are left; each then pushes those behind it on.
    places = torch.randperm(length - count * (span - 1), generator=numbers)[:count].sort().values
    starts = places + (span - 1) * torch.arange(count)
    hidden = torch.zeros(length, dtype=torch.bool)
    hidden[(starts[:, None] + torch.arange(span)).flatten()] = True
    return hidden


def following(values: Tensor) -> Tensor:
    """At each step the next one's, and nothing (NaN, or -100) at the last."""
    last = torch.full_like(values[:1], float("nan") if values.is_floating_point() else _IGNORED)
    return torch.cat([values[1:], last])


def collate(items: list[PretextItem]) -> PretextBatch:
    """Items to a batch: nothing is asked behind the end of the shorter ones."""
    pad = torch.nn.utils.rnn.pad_sequence
    nothing = float("nan") if items[0].targets.is_floating_point() else float(_IGNORED)
    known = [item.dt for item in items if item.dt is not None]
    return PretextBatch(
        pad([item.inputs for item in items], batch_first=True),
        pad([item.targets for item in items], batch_first=True, padding_value=nothing),
        torch.tensor([len(item.inputs) for item in items]),
        pad(known, batch_first=True, padding_value=1.0) if known else None,
    )


def pretext_task(
    task: Task, kind: Kind, *, rate: float | None = None, span: int | None = None, seed: int = 0
) -> Task:
    """The pretext over a task's training inputs: a task of its own, for ``models/pretraining.py``.

    A tenth of the training inputs, at most 512, is held out to validate on, and stands for the test part too:
    the parts that the task itself validates and tests on are not read. Grey pictures of 256 levels, read
    pixel by pixel, are asked for as levels; other values as numbers.

    Args:
        task: of labelled sequences or pairs of them, or of values in and values out.
        kind: "masked" or "causal".
        rate: share of the steps that are hidden; None takes ``usual_rate``. For "masked" alone.
        span: steps that are hidden together; None hides each by itself. For "masked" alone.
        seed: of the masks.

    Raises:
        ValueError: another kind of task, fewer than two training sequences, a rate or span that cannot be or
            that hides nothing of what is held out.
    """
    check(kind, rate, span)
    channels, vocab_size = task.facts.get("channels"), task.facts.get("vocab_size")
    if task.kind not in SOURCES or (channels is None) == (vocab_size is None):
        raise ValueError(
            f"pretraining reads sequences of values or tokens, of a {' or '.join(SOURCES)} task; got "
            f"{task.name!r}, a {task.kind} task. Leave the pretraining out."
        )
    count = len(task.train)  # type: ignore[arg-type]
    if count < 2:
        raise ValueError(f"pretraining takes two training sequences or more; {task.name!r} has {count}.")
    order = sorted(range(count), key=lambda i: mixed(0, i))
    held = max(1, min(round(_HELD * count), _MOST))
    levels = task.details.get("levels") if channels == 1 else None
    pairs = bool(task.facts.get("pairs"))
    share = (usual_rate(task) if rate is None else rate) if kind == "masked" else 0.0

    def part(chosen: Sequence[int]) -> Pretext:
        return Pretext(task.train, chosen, kind, share, span, vocab_size, levels, seed, pairs)

    train, valid = part(sorted(order[held:])), part(sorted(order[:held]))
    if kind == "masked" and not any(valid.hides(i) for i in range(len(valid))):
        raise ValueError(
            f"{task.name!r}: with a rate of {share:g}{f' and spans of {span}' if span else ''} nothing is "
            f"hidden in the {len(valid)} sequences that are held out to choose the weights by. Take a higher "
            f"rate{' or a shorter span' if span else ''}."
        )
    scaling = {name: task.facts.get(name) for name in ("location", "scale")} if channels else {}
    told = {"hidden": share, "span": span} if kind == "masked" else {}
    return Task(
        kind="pretraining",
        name=f"{task.name}, {kind}",
        train=train,
        valid=valid,
        test=valid,
        collate=collate,
        facts={
            "pretext": kind,
            "channels": channels,
            "vocab_size": vocab_size,
            "levels": levels,
            **scaling,
        },
        tokenizer=task.tokenizer,
        details={
            "source": task.details.get("source", task.name),
            "pretext": kind,
            **told,
            "seed": seed,
            "sequences": {"train": len(train), "valid": len(valid)},
        },
        naive=dict,
    )


def usual_rate(task: Task) -> float:
    """The share that is hidden if none is named: of pictures 1/2, expressions 0.1, text 0.15, values 1/4.

    The first three are the paper's for the tasks of the Long Range Arena; the last is ours.
    """
    if "images" in task.details:
        return 0.5
    if task.facts.get("vocab_size") is None:
        return 0.25
    expressions = task.tokenizer is not None and task.tokenizer.token_to_id("[SM") is not None
    return 0.1 if expressions else 0.15


def check(kind: str, rate: float | None, span: int | None) -> None:
    """Raises ValueError in a sentence where a pretext, a rate or a span cannot be."""
    if kind not in KINDS:
        raise ValueError(f"pretraining is {' or '.join(KINDS)}; got {kind!r}. Take one of the two.")
    if kind == "causal" and (rate is not None or span is not None):
        raise ValueError(
            "a rate and a span say what is hidden, and the pretext 'causal' hides nothing: leave them out, "
            "or take 'masked'."
        )
    if rate is not None and not 0 < rate < 1:
        raise ValueError(
            f"the rate is the share of the steps that is hidden, above 0 and below 1; got {rate:g}. Take "
            f"0.15, say."
        )
    if span is not None and span < 1:
        raise ValueError(f"a span is one step or more that are hidden together; got {span}.")

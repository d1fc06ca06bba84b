"""The linear system inside a mixer: taken from an engine's own numbers, or read off ``step`` by probing."""

import copy
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.analyze.systems import Modal, StateSpace, System
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._lti import LTI
from hippodrome.mixers.base import Mixer
from hippodrome.ops import _pairs

MOST = 1024
"""The largest state that is probed entry by entry."""


class Probed(NamedTuple):
    """A system, and whether it is one for each channel or one that all channels share."""

    system: System
    per_channel: bool


@torch.no_grad()
def discrete_system(mixer: Mixer) -> Probed:
    """One step of a mixer's linear system in float64, up to where its activation or gate begins.

    Members of the diagonal engines tell it themselves. Any other mixer is probed: the columns of A and B are
    what ``step`` makes of each unit state and each unit input, and the answer is then held against ``step``
    at random states and inputs, so what is returned is the mixer's own recurrence to 1e-8. With
    ``per_channel`` the matrices have the channels in front, (d, n, n); else they are (n, n), (n, d), (d, n),
    (d, d).

    Raises:
        ValueError: there is no such system, with the reason as a sentence: the recurrence depends on its
            input or on time, is not linear, or its state is too large to probe.
    """
    twin = copy.deepcopy(mixer).cpu().double().eval().requires_grad_(False)
    if isinstance(twin, LTI):
        _must_scale(twin)
        return _from_engine(twin)
    if not twin.causal:
        raise ValueError(f"{type(mixer).__name__} looks at both sides of a token: it has no step to read.")
    # The recurrence ends where the output map begins. What is set here is set on the twin alone.
    for name in ("readout", "_readout"):
        readout: Any = getattr(twin, name, None)
        if callable(readout) and len(inspect.signature(readout).parameters) == 1:
            twin.__dict__[name] = lambda y: y
    if isinstance(getattr(twin, "output", None), GatedOutput):
        twin.output = nn.Identity()
    if isinstance(getattr(twin, "activation", None), str):
        twin.__dict__["activation"] = "none"
    return _probe(twin)


def _must_scale(mixer: Any) -> None:
    """Raise where twice the state and twice the input do not make twice the next state."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, mixer.d_model, generator=g, dtype=torch.float64)
    fresh = mixer.init_state(1, 8)
    h = torch.randn(fresh[0].shape, generator=g, dtype=torch.float64)
    once = mixer.step(x, fresh._replace(**{fresh._fields[0]: h}))[1][0]
    twice = mixer.step(2 * x, fresh._replace(**{fresh._fields[0]: 2 * h}))[1][0]
    if not _close(twice, 2 * once):
        raise ValueError(
            f"{type(mixer).__name__} is no linear system that is the same at every step: its input changes "
            "how its state moves."
        )


def _from_engine(mixer: LTI) -> Probed:
    A, B, C, D = (part.double() for part in mixer.system())
    step = mixer.step_size().double()
    if A.dim() == 3:  # one system for each channel, whoever runs it
        log_a, gain = mixer.discretize(A, step[:, None])
        write = _pairs.times(gain, B)[:, :, None]
        return Probed(Modal(log_a, write, C[:, None], D[:, None, None]), True)
    log_a, gain = mixer.discretize(A, step)
    return Probed(Modal(log_a, _pairs.times(gain[:, None], B), C, torch.diag(D)), False)


class _Packed:
    """A mixer's floating state as flat vectors; other parts of the state (counters) stay as they are."""

    def __init__(self, mixer: Any, like: tuple) -> None:
        self.mixer, self.like = mixer, like
        self.moving = [i for i, part in enumerate(like) if part.is_floating_point() and part.numel()]

    def unpack(self, parts: list[Tensor]) -> tuple:
        rows = parts[0].shape[0]
        fixed = [part[:1].expand(rows, *part.shape[1:]).clone() for part in self.like]
        for i, part in zip(self.moving, parts, strict=True):
            fixed[i] = part
        return type(self.like)(*fixed)

    def step(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, after = self.mixer.step(x, self.unpack(parts))
        return y, [after[i] for i in self.moving]

    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(self.like[i].shape[1:]) for i in self.moving]


def _probe(mixer: Any) -> Probed:
    name = type(mixer).__name__
    fresh = mixer.init_state(1, 64)
    late = fresh
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        _, late = mixer.step(torch.randn(1, mixer.d_model, generator=g, dtype=torch.float64), late)
    if any(a.shape != b.shape for a, b in zip(fresh, late, strict=True)):
        raise ValueError(f"{name} keeps a state that grows with the sequence: it is no system of fixed size.")
    packed, later = _Packed(mixer, fresh), _Packed(mixer, late)
    if not packed.moving:
        raise ValueError(f"{name} carries no state of numbers from step to step.")
    shapes = packed.shapes()
    d = mixer.d_model
    if all(shape[0] == d for shape in shapes) and sum(_size(s) for s in shapes) // d <= MOST:
        found = _per_channel(packed, shapes, d)
        if _agrees(found, later, shapes, True, g) is None:
            return Probed(found, True)
    if (size := sum(_size(s) for s in shapes)) > MOST:
        raise ValueError(
            f"{name} mixes {size} numbers of state, more than the {MOST} that are probed one by one, "
            "so a linear system was not looked for. Fewer channels or states may be few enough."
        )
    found = _shared(packed, shapes, d)
    why = _agrees(found, later, shapes, False, g)
    if why is not None:
        raise ValueError(f"{name} is no linear system that is the same at every step: {why}.")
    return Probed(found, False)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _join(parts: list[Tensor], per_channel: bool) -> Tensor:
    """State tensors (rows, ...) as (rows, d, n) or (rows, n)."""
    lead = 2 if per_channel else 1
    return torch.cat([part.reshape(*part.shape[:lead], -1) for part in parts], -1)


def _split(joined: Tensor, shapes: list[tuple[int, ...]], per_channel: bool) -> list[Tensor]:
    sizes = [_size(shape[1:] if per_channel else shape) for shape in shapes]
    return [
        part.reshape(joined.shape[0], *shape)
        for part, shape in zip(joined.split(sizes, -1), shapes, strict=True)
    ]


def _per_channel(packed: _Packed, shapes: list[tuple[int, ...]], d: int) -> StateSpace:
    """Every channel's system at once: one unit state, or the unit input, in all channels together."""
    n = sum(_size(shape[1:]) for shape in shapes)
    states = torch.zeros(n + 2, d, n, dtype=torch.float64)
    states[:n] = torch.eye(n, dtype=torch.float64)[:, None]
    x = torch.zeros(n + 2, d, dtype=torch.float64)
    x[n] = 1
    y, after = packed.step(x, _split(states, shapes, True))
    moved = _join(after, True)
    moved, y = moved - moved[-1:], y - y[-1:]
    A, B = moved[:n].permute(1, 2, 0), moved[n][..., None]
    y = y.reshape(n + 2, d, -1)  # a channel may have several outputs
    return _separate(A, B, y[:n].permute(1, 2, 0), y[n][..., None])


def _shared(packed: _Packed, shapes: list[tuple[int, ...]], d: int) -> StateSpace:
    n = sum(_size(shape) for shape in shapes)
    states = torch.zeros(n + d + 1, n, dtype=torch.float64)
    states[:n] = torch.eye(n, dtype=torch.float64)
    x = torch.zeros(n + d + 1, d, dtype=torch.float64)
    x[n : n + d] = torch.eye(d, dtype=torch.float64)
    y, after = packed.step(x, _split(states, shapes, False))
    moved = _join(after, False)
    moved, y = moved - moved[-1:], y - y[-1:]
    y = y.flatten(1)
    return _separate(moved[:n].T, moved[n : n + d].T, y[:n].T, y[n : n + d].T)


def _separate(A: Tensor, B: Tensor, after: Tensor, through: Tensor) -> StateSpace:
    """C and D of y_k = C x_k + D u_k from what y is of the state before, C A, and of the input, C B + D.

    Where A cannot be undone, C is the least-squares answer, and D takes what is left; a readout of what the
    step forgets (an output delayed by a state that is overwritten) is then kept by adding the old state to
    the new one.
    """
    C = torch.linalg.lstsq(A.mT, after.mT, driver="gelsd").solution.mT
    if bool((C @ A - after).abs().max() <= 1e-10 * after.abs().max().clamp_min(1e-300)):
        return StateSpace(A, B, C, through - C @ B)
    n, m = A.shape[-1], B.shape[-1]
    lead = A.shape[:-2]
    eye = torch.eye(n, dtype=A.dtype).expand(*lead, n, n)
    top = torch.cat([A, A.new_zeros(*lead, n, n)], -1)
    both = torch.cat([top, torch.cat([eye, A.new_zeros(*lead, n, n)], -1)], -2)
    return StateSpace(
        both,
        torch.cat([B, B.new_zeros(*lead, n, m)], -2),
        torch.cat([after.new_zeros(after.shape), after], -1),
        through,
    )


def _agrees(
    system: StateSpace,
    packed: _Packed,
    shapes: list[tuple[int, ...]],
    per_channel: bool,
    g: torch.Generator,
) -> str | None:
    """Why ``step`` is not this system at random states and inputs, later in time than it was read."""
    d, rows = packed.mixer.d_model, 4
    sizes = [_size(shape[1:] if per_channel else shape) for shape in shapes]
    n = sum(sizes)
    states = torch.randn(rows, *([d] if per_channel else []), n, generator=g, dtype=torch.float64)
    u = torch.randn(rows, d, generator=g, dtype=torch.float64)
    states[0], u[0] = 0, 0
    y, after = packed.step(u, _split(states, shapes, per_channel))
    moved = _join(after, per_channel)
    drive = u[..., None] if per_channel else u
    before = torch.cat([states, torch.zeros_like(states)], -1) if system.A.shape[-1] > n else states
    expected = (system.A @ before[..., None] + system.B @ drive[..., None])[..., 0]
    out = (system.C @ expected[..., None] + system.D @ drive[..., None])[..., 0]
    y = y.reshape(out.shape)
    if not _close(moved, expected[..., :n]):
        return "its next state is not one matrix times the last plus another times the input"
    if not _close(y - y[:1], out):
        return "its output is not one matrix times the state plus another times the input"
    return None


def _close(found: Tensor, expected: Tensor) -> bool:
    scale = expected.abs().max().clamp_min(1e-300)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= 1e-8 * scale)

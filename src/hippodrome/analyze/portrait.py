"""The portrait of a mixer: facts and charts of its linear system, or of its answers where it has none."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hippodrome.analyze import balance, charts, fidelity, gramians, reconstruction, systems
from hippodrome.analyze.charts import Chart, Gain, Trace
from hippodrome.analyze.identify import Probed, discrete_system
from hippodrome.analyze.response import impulse_response, spectrum
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.mixers.lmu import LMU

LOOKED_AT = 8
"""Systems of a bank whose Hankel values are computed at most: evenly spaced channels."""
LARGEST = 512
"""States of the largest system whose Hankel values are computed: that takes their third power of work."""
DRAWN = 4
"""Lines in one chart."""


class Portrait(NamedTuple):
    """What is known of one mixer. ``why_not`` says why it has no linear system, or that no Hankel values."""

    system: Probed | None
    why_not: str
    hankel: Tensor | None
    channels: tuple[int, ...]


def portrait(mixer: Mixer) -> Portrait:
    """Find the mixer's linear system and the Hankel values of its (first, evenly spaced) channels."""
    try:
        found = discrete_system(mixer)
    except ValueError as error:
        return Portrait(None, str(error), None, ())
    count = found.system.D.shape[0] if found.per_channel else 1
    states = _states(found.system)
    if states > LARGEST:
        why = f"its {states} states are more than the {LARGEST} whose Hankel values are computed here"
        return Portrait(found, why, None, ())
    looked_at = max(1, min(count, LOOKED_AT, LOOKED_AT * 128**3 // states**3))
    channels = tuple(dict.fromkeys(int(i) for i in np.linspace(0, count - 1, looked_at)))
    try:
        hankel = balance.hankel_values(_some(found, channels))
    except ValueError as error:
        return Portrait(found, str(error), None, channels)
    return Portrait(found, "", hankel, channels)


def _states(system: systems.System) -> int:
    """Real numbers in the state of one system."""
    return (2 if isinstance(system, systems.Modal) else 1) * system.poles().shape[-2]


def _some(found: Probed, channels: tuple[int, ...]) -> systems.System:
    """The systems of these channels; a shared one as it is."""
    if not found.per_channel:
        return found.system
    return type(found.system)(*(part[list(channels)] for part in found.system))


def facts(subject: Portrait) -> dict[str, Any]:
    """Numbers of the portrait, for programs: the system's sizes, its Hankel values, the order it needs."""
    if subject.system is None:
        return {"linear": False, "why_not": subject.why_not}
    system, per_channel = subject.system
    radius = system.poles().norm(dim=-1)
    found: dict[str, Any] = {
        "linear": True,
        "one_system_per_channel": per_channel,
        "states": _states(system),
        "largest_modulus": float(radius.max()),
    }
    if subject.hankel is None:
        return {**found, "why_not": subject.why_not}
    values = torch.atleast_2d(subject.hankel)
    order = balance.effective_order(values)
    found["channels_looked_at"] = list(subject.channels) if per_channel else None
    found["hankel_values"] = values.median(0).values.tolist()
    found["effective_order"] = {
        "least": int(order.min()),
        "median": int(order.median()),
        "most": int(order.max()),
        "tolerance": 0.01,
    }
    return found


def drawings(kind: str, mixer: Mixer, subject: Portrait, length: int) -> list[Chart]:
    """Every chart there is of this mixer, in the order in which a person would look at them."""
    made = [_impulse(kind, mixer, length)]
    if subject.system is not None:
        made.append(_bode(kind, subject.system))
    elif mixer.causal:
        made.append(_numerical_bode(kind, mixer, length, subject.why_not))
    values = poles(mixer, subject)
    if values is not None:
        title = f"{kind}: poles of one step"
        made.append(charts.poles(f"{kind}-poles", title, values.detach().cpu().double().numpy()))
    if subject.system is not None and subject.hankel is not None:
        made += _hankel(kind, subject)
        made += _reach(kind, subject)
    if isinstance(mixer, HippoLegS | LMU):
        made.append(_memory(kind, mixer, length))
    return made


def poles(mixer: Mixer, subject: Portrait) -> Tensor | None:
    """Eigenvalues (m, 2) of one step: of the linear system where there is one, else of the derivative."""
    return spectrum(mixer) if subject.system is None else _all_poles(subject.system.system)


def _all_poles(system: systems.System) -> Tensor:
    """Poles of every system side by side, with the conjugates that a diagonal form leaves out."""
    values = system.poles().reshape(-1, 2)
    if isinstance(system, systems.Modal):
        values = torch.cat([values, values * torch.tensor([1.0, -1.0], dtype=values.dtype)])
    return values


def _impulse(kind: str, mixer: Mixer, length: int) -> Chart:
    answer = impulse_response(mixer, length).cpu().double().numpy()
    lines = [
        Trace(f"channel {i}", np.arange(length), answer[:, i]) for i in range(min(DRAWN, answer.shape[1]))
    ]
    title = f"{kind}: answer to an impulse"
    note = "An impulse of 1 in every channel, through the whole mixer with its output map."
    return charts.traces(f"{kind}-impulse", title, lines, x="token", y="output", note=note)


def _grid() -> Tensor:
    return torch.logspace(-4, 0, 400, dtype=torch.float64) * torch.pi


def _bode(kind: str, found: Probed) -> Chart:
    omega = _grid()
    if found.per_channel:
        count = min(DRAWN, found.system.D.shape[0])
        response = _some(found, tuple(range(count))).response(omega)[:, :, 0, 0].movedim(0, 1)
        names = [f"channel {i}" for i in range(count)]
    else:
        response = found.system.response(omega)
        count = min(DRAWN, *response.shape[1:3])
        response = response[:, range(count), range(count)]
        names = [f"input {i} to output {i}" for i in range(count)]
    plot = systems.bode(response)
    gains = [
        Gain(name, omega.numpy(), plot.decibels[:, i].numpy(), plot.degrees[:, i].numpy())
        for i, name in enumerate(names)
    ]
    note = "The linear system before the output map; pi radians a step is the fastest there is."
    return charts.bode(f"{kind}-bode", f"{kind}: transfer function", gains, note=note)


def _numerical_bode(kind: str, mixer: Mixer, length: int, why_not: str) -> Chart:
    answer = impulse_response(mixer, length).cpu()
    omega = systems.frequencies_of(length)[1:]
    plot = systems.bode(systems.response_of_kernel(answer)[1:])
    gains = [
        Gain(f"channel {i}", omega.numpy(), plot.decibels[:, i].numpy(), plot.degrees[:, i].numpy())
        for i in range(min(DRAWN, answer.shape[1]))
    ]
    note = f"The Fourier transform of the answer to one impulse: a look at one working point. {why_not}"
    return charts.bode(f"{kind}-bode", f"{kind}: answer to an impulse over frequency", gains, note=note)


def _hankel(kind: str, subject: Portrait) -> list[Chart]:
    """The Hankel values, and what balanced truncation of the first channel promises and does."""
    assert subject.system is not None
    assert subject.hankel is not None
    values = torch.atleast_2d(subject.hankel)
    names = [f"channel {i}" for i in subject.channels] if subject.system.per_channel else ["all channels"]
    floor = values.max() * 1e-17
    lines = [
        Trace(name, np.arange(1, len(row) + 1), torch.where(row > floor, row, torch.nan).numpy())
        for name, row in list(zip(names, values, strict=True))[:DRAWN]
    ]
    note = (
        "How much each balanced state carries from past inputs to future outputs. Where the line falls "
        "steeply, fewer states would do."
    )
    made = [
        charts.traces(
            f"{kind}-hankel",
            f"{kind}: Hankel singular values",
            lines,
            x="state",
            y="value",
            log_y=True,
            markers=True,
            note=note,
        )
    ]
    n = values.shape[-1]
    if n > LARGEST // 2:
        return made
    first = _some(subject.system, subject.channels[:1])
    orders = sorted(
        {
            int(k)
            for k in np.unique(np.geomspace(1, max(1, n - 1), 8 if subject.system.per_channel else 4).round())
        }
    )
    # With many inputs and outputs each frequency takes a singular value decomposition.
    frequencies = 512 if subject.system.per_channel else 32
    cut = balance.truncations(first, orders, length=256, frequencies=frequencies)
    scale = float(balance.worst_case(first, _nothing(first), frequencies).max()) or 1.0
    tiny = 1e-16
    promised = [max(float(c.bound.max()) / scale, tiny) for c in cut]
    measured = [max(float(c.error.max()) / scale, tiny) for c in cut]
    lines = [Trace("promised: 2 x sum left out", orders, promised), Trace("measured", orders, measured)]
    made.append(
        charts.traces(
            f"{kind}-truncation",
            f"{kind}: error with fewer states ({names[0]})",
            lines,
            x="states kept",
            y="largest error / largest gain",
            log_y=True,
            markers=True,
            note="Balanced truncation: the frequency response errs nowhere by more than is promised.",
        )
    )
    return made


def _nothing(system: systems.System) -> systems.StateSpace:
    whole = system.dense()
    return whole._replace(C=torch.zeros_like(whole.C), D=torch.zeros_like(whole.D))


def _reach(kind: str, subject: Portrait) -> list[Chart]:
    """States within reach of unit energy, on the two axes along which the first system is moved most."""
    assert subject.system is not None
    first = _some(subject.system, subject.channels[:1])
    A, B, _, _ = (part[0] for part in first.dense()) if subject.system.per_channel else first.dense()
    if A.shape[-1] < 2:
        return []
    whole = gramians.controllability(A, B)
    axes = torch.linalg.eigh(whole).eigenvectors[:, -2:].flip(-1)
    edges = {}
    for name, steps in (("4 steps", 4), ("16 steps", 16), ("64 steps", 64), ("no end", None)):
        W = whole if steps is None else gramians.controllability(A, B, steps)
        edges[name] = gramians.reachable_outline(axes.T @ W @ axes).numpy()
    note = "{x : x^T W^-1 x <= 1}, seen on the first two principal axes of the controllability Gramian W."
    title = f"{kind}: states within reach of unit energy"
    labels = {"x": "first axis", "y": "second axis"}
    return [charts.outline(f"{kind}-reach", title, edges, **labels, note=note)]


def _memory(kind: str, mixer: HippoLegS | LMU, length: int) -> Chart:
    signal = reconstruction.band_limited(length, max(2, length / 40))
    return past(f"{kind}-past", kind, reconstruction.of_mixer(mixer, signal))


def past(name: str, what: str, found: reconstruction.Rebuilt) -> Chart:
    """The chart of a rebuilt past."""
    ago = -found.age.numpy()
    lines = [
        Trace("signal", ago, found.truth.numpy(), ink=True),
        Trace("rebuilt", ago, found.rebuilt.numpy()),
    ]
    title = f"{what}: the past rebuilt from the state, error {100 * found.error:.2g} %"
    note = f"No weights on the same functions come closer than {100 * found.best:.2g} %."
    return charts.traces(name, title, lines, x="tokens ago", y="signal", note=note)


def hippo_fidelity(n: int, alpha: float = 0.1) -> list[Chart]:
    """S4D-LegS and PTD held against the dense HiPPO-LegS, over frequency and in time."""
    found = fidelity.fidelity(n, alpha)
    omega = found.omega.numpy()
    lines = [Trace(name, omega, error.numpy()) for name, error in found.error.items()]
    peak = float(found.amplified["S4D-LegS"].max())
    spectrum_note = (
        f"At {found.spike:.4g} radians a unit of time S4D-LegS answers {peak:.4g} times as large as HiPPO; "
        f"PTD errs by at most {float(found.error['PTD'].max()):.3g}, its bound is {found.bound:.3g}."
    )
    over = charts.traces(
        "hippo-fidelity",
        f"Error of the state against dense HiPPO-LegS, n = {n}",
        lines,
        x="radians a unit of time",
        y="relative error",
        log_x=True,
        log_y=True,
        rules={"bound of PTD": found.bound},
        note=spectrum_note,
    )
    noise = fidelity.under_noise(n, alpha)
    series = [Trace("HiPPO", noise.time.numpy(), noise.noisy["HiPPO"].numpy(), ink=True)]
    series += [Trace(k, noise.time.numpy(), noise.noisy[k].numpy()) for k in ("S4D-LegS", "PTD")]
    note = (
        f"A slow sinusoid and a tenth of it at {noise.frequency:.4g} radians a unit of time, each system by "
        f"zero-order hold, one C for all. The noise comes out {noise.gain['S4D-LegS']:.4g} times as large as "
        f"from HiPPO with S4D-LegS, {noise.gain['PTD']:.4g} times with PTD."
    )
    title = f"Outputs under noise at the spike, n = {n}"
    return [over, charts.traces("hippo-noise", title, series, x="time", y="output", note=note)]


def fidelity_facts(n: int, alpha: float = 0.1) -> dict[str, float | int]:
    """The largest relative errors of S4D-LegS and PTD against dense HiPPO-LegS, and where the first peaks."""
    found = fidelity.fidelity(n, alpha)
    return {
        "states": n,
        "alpha": alpha,
        "spike": found.spike,
        "s4d_legs_error": float(found.error["S4D-LegS"].max()),
        "ptd_error": float(found.error["PTD"].max()),
        "bound": found.bound,
    }

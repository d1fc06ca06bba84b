"""`hippodrome inspect`: what a mixer, a recipe or a trained model remembers, and what it costs."""

import difflib
import math
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from hippodrome.cli import _look_back, _reads, _spent
from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, count, size, table
from hippodrome.cli._settings import Assignments, File, Settings

if TYPE_CHECKING:
    from torch import nn

    from hippodrome.analyze.charts import Chart
    from hippodrome.analyze.portrait import Portrait
    from hippodrome.analyze.spectra import Learned
    from hippodrome.runs import Run

PANEL = "Look things up"
CONTEXT = 256
"""Tokens, if nothing else is asked for."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }}
td {{ padding: 0 1.5rem 0 0; vertical-align: top; }} figure {{ margin: 1.5rem 0; }}
svg {{ width: 100%; height: auto; }} figcaption {{ font-size: 0.85rem; opacity: 0.75; max-width: 40rem; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem 2rem; }}
</style></head><body><h1>{title}</h1>
<table>{facts}</table><div class="grid">{charts}</div></body></html>
"""


class _Subject(NamedTuple):
    """What is looked at: a module over (b, t, d), one mixer of each kind in it, the whole model if any.

    A forecaster without a backbone has no such module and no mixers: ``body`` is then the whole too.
    ``legs``: the size of the HiPPO-LegS matrix that its poles start from, where they do. ``learned``: the
    forecaster beside the autoregression that its data come from, where they do.
    """

    title: str
    body: "nn.Module"
    mixers: "dict[str, nn.Module]"
    whole: "nn.Module"
    legs: int | None = None
    learned: "Learned | None" = None


def command(
    what: Annotated[
        str, typer.Argument(help="A kind of mixer (or bi-KIND), a pattern, a recipe, or a run folder.")
    ],
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of context; 256, or one grid, if left out.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=8, help="Channels of a mixer or recipe.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write the charts to this page, which opens offline."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each chart to this folder as a PNG file.")
    ] = None,
    on: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="What the layers of a run read of its N-th test sequence."),
    ] = None,
    device: Device = "cpu",
    assignments: Assignments = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Show kernels, transfer function, spectrum, Hankel values, memory and cost.

    Options of a mixer's constructor go by -s name=value, in a pattern by -s KIND.name=value. What is a linear
    system before its output map is shown as one, the others by their answer to an impulse. S4D and S5 that
    start from HiPPO-LegS are also held against the dense system, with and without perturb-then-diagonalize.
    --on draws the hidden attention of layers that make their gates from tokens, how long the parts of their
    states remember and where depth drives tokens, of a model that chooses what it attends to (seqboat)
    where it did, and of a forecaster how much its forecasts depend on each step of the past.
    """
    _check_places(out, png)
    settings = Settings(file, assignments)
    subject = _subject(what, width, length, present(device), settings.values)
    length = length or _grid(subject) or CONTEXT
    portraits = _portraits(subject)
    facts = _facts(subject, portraits, length)
    seen = [] if on is None else _look_at(what, present(device), on, facts)
    written: list[Path] = []
    if out is not None or png is not None:
        charts = [*seen, *_charts(subject, portraits, length)]
        written = _write(out, png, charts, subject, facts)
    if json:
        as_json(facts)
        return
    table(subject.title, ["what", "value"], list(_shown(facts).items()))
    for path in written:
        typer.echo(f"charts: {path}")


def _look_at(folder: str, device: str, number: int, facts: dict[str, Any]) -> "list[Chart]":
    """Pictures of one test sequence of a run; what they say is put among the facts."""
    from hippodrome.mixers.seqboat import SeqBoat

    given = _spent.sequences(folder, device, number)
    reads = _reads.look(given)
    facts["layers"] = reads.facts
    if given.run.spec["kind"] == "forecasting":
        seen = _look_back.look(given)
        facts["look_back"] = seen.facts
        return [seen.chart, *reads.charts]
    if not any(isinstance(module, SeqBoat) for module in given.run.model.modules()):
        if not reads.facts:
            raise ValueError(
                "--on shows what layers read that make their gates from tokens (mamba, gla, attention, ...) "
                "or that choose what they attend to (seqboat); this model has none of them"
            )
        return reads.charts
    spent = _spent.look(given)
    facts["attention_spent"] = spent.facts
    return [spent.chart, *reads.charts]


def _check_places(out: Path | None, png: Path | None) -> None:
    if out is not None and (out.suffix.lower() not in (".html", ".htm") or out.is_dir()):
        raise ValueError(
            f"--out takes the name of an HTML file, such as charts.html; got {str(out)!r}. "
            "For PNG files give a folder: --png FOLDER."
        )
    if out is not None and not out.parent.is_dir():
        raise ValueError(
            f"--out writes into a folder that is there; {str(out.parent)!r} is none. Make it first."
        )
    if png is not None and png.exists() and not png.is_dir():
        raise ValueError(f"--png takes a folder for the charts; {str(png)!r} is a file")


def _subject(
    what: str, width: int | None, length: int | None, device: str, options: dict[str, Any]
) -> _Subject:
    from hippodrome import config

    kind = config.bare(what)
    if kind in config.choices("mixers"):
        width = width or 64
        filled = config.with_small_sizes(what, {kind: options}, width, length or CONTEXT)
        spec = config.stack_spec(what, width, 1, options=filled)["blocks"][0]["mixer"]
        body = config.build(spec, "mixers").to(device)
        return _Subject(what, body, {what: body, **_mixers(body)}, body, _legs(what, options))
    from hippodrome import checkpoints
    from hippodrome.config import published as recipes

    if set(":+*") & set(what) and not Path(what).exists():
        width = width or 64
        filled = config.with_small_sizes(what, options, width, length or CONTEXT)
        body = config.build(config.stack_spec(what, width, options=filled), "backbones").to(device)
        return _Subject(what, body, _mixers(body), body)
    if options:
        raise ValueError(f"options go to mixers' constructors; {what!r} is no mixer and no pattern of them")
    if what in recipes.names():
        spec = recipes.find(what).model.stack(width)
        if spec is None:
            raise ValueError(f"{what!r} is one linear map of the window, with no backbone to look into")
        body = config.build(spec, "backbones").to(device)
        return _Subject(what, body, _mixers(body), body)
    if not Path(what).exists():
        known = [*config.choices("mixers"), *recipes.names()]
        near = difflib.get_close_matches(what, known, 1)
        remedy = f"Did you mean {near[0]!r}?" if near else "hippodrome list names what there is."
        raise ValueError(f"there is no mixer, recipe or run folder {what!r}. {remedy}")
    run = checkpoints.open_model(what, device)
    body = run.model if run.model.backbone is None else run.model.backbone
    return _Subject(what, body, _mixers(body), run.model, learned=_learned(run))


def _learned(run: "Run") -> "Learned | None":
    """What a forecaster made of a generated autoregression, looked at on windows of its test part."""
    if "coefficients" not in run.details:
        return None
    import torch

    from hippodrome.analyze import spectra
    from hippodrome.cli._data import task_of

    task = task_of(run, None, {})
    windows: Any = task.test
    places = sorted({round(i * (len(windows) - 1) / 255) for i in range(256)})
    past = torch.stack([windows[i].past for i in places]).to(next(run.model.parameters()).device)
    return spectra.learned(run.model, past, run.details["coefficients"], run.details["noise"])


def _legs(kind: str, options: dict[str, Any]) -> int | None:
    """The size of the HiPPO-LegS matrix behind an S4D or S5 that starts from one, up to 256."""
    starts = {"s4d": ("legs", "ptd"), "s5": ("hippo", "ptd")}.get(kind, ())
    n = int(options.get("d_state", 64)) // int(options.get("blocks", 1))
    return n if options.get("init", "".join(starts[:1])) in starts and 2 <= n <= 256 else None


def _mixers(body: "nn.Module") -> "dict[str, nn.Module]":
    """The first mixer of each kind inside."""
    from hippodrome.mixers.base import Mixer

    found: dict[str, nn.Module] = {}
    for module in body.modules():
        if isinstance(module, Mixer):
            found.setdefault(type(module).__module__.rsplit(".", 1)[-1].lstrip("_"), module)
    return found


def _grid(subject: _Subject) -> int | None:
    """The points of the grid that the first module inside takes whole, if one does."""
    from hippodrome.backbones._grid import GridMixer
    from hippodrome.backbones._whole import WholeRows

    for module in subject.body.modules():
        if isinstance(module, WholeRows):
            return math.prod(module.whole)
        if isinstance(module, GridMixer):
            return math.prod(module.sizes)
    return None


def _portraits(subject: _Subject) -> "dict[str, Portrait]":
    from hippodrome.analyze.portrait import portrait

    return {kind: portrait(mixer) for kind, mixer in subject.mixers.items()}  # type: ignore[arg-type]


def _facts(subject: _Subject, portraits: "dict[str, Portrait]", length: int) -> dict[str, Any]:
    import torch

    from hippodrome.analyze import portrait
    from hippodrome.analyze.cost import (
        active_parameters,
        count_flops,
        parameter_count,
        state_bytes,
        weight_bytes_read,
    )
    from hippodrome.analyze.memory import effective_memory

    body: Any = subject.body
    if body is subject.whole and not hasattr(body, "d_model"):
        return _look_back.without_backbone(body)
    weight = next(body.parameters())
    read = weight_bytes_read(subject.whole) + state_bytes(body, length) if body.causal else None
    if weight.dtype.itemsize < 4:
        # Derivatives and poles are not looked at through two bytes.
        subject.whole.float()
    x = torch.zeros(1, length, body.d_model, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        flops, uncounted = count_flops(lambda: body(x))
    facts: dict[str, Any] = {
        "parameters": parameter_count(subject.whole),
        "active_parameters": active_parameters(subject.whole),
        "state_bytes": state_bytes(body, length) if body.causal else None,
        "flops_per_token": flops / length,
        "uncounted": list(uncounted),
        "bytes_per_token": read,
        "memory_tokens": effective_memory(body, length).reach if body.causal else None,
        "spectrum": {},
        "systems": {kind: portrait.facts(found) for kind, found in portraits.items()},
    }
    for kind, mixer in subject.mixers.items():
        values = portrait.poles(mixer, portraits[kind])  # type: ignore[arg-type]
        if values is not None:
            radius = values.norm(dim=-1)
            facts["spectrum"][kind] = {"least": float(radius.min()), "most": float(radius.max())}
    if subject.legs is not None:
        facts["against_hippo"] = portrait.fidelity_facts(subject.legs)
    if subject.learned is not None:
        facts["against_process"] = {
            "spectrum_error_db": subject.learned.distance,
            "weight_error": subject.learned.weight_error,
            "weights": subject.learned.weights.tolist(),
        }
    return facts


def _shown(facts: dict[str, Any]) -> dict[str, str]:
    shown = {
        "parameters": count(facts["parameters"]),
        "arithmetic a token": f"{count(facts['flops_per_token'])}FLOP",
    }
    if facts["active_parameters"] != facts["parameters"]:
        shown["parameters a token goes through"] = count(facts["active_parameters"])
    if facts["uncounted"]:
        shown["not counted"] = ", ".join(facts["uncounted"])
    if facts["state_bytes"] is not None:
        shown["bytes read a token, decoding"] = size(facts["bytes_per_token"])
        shown["state of a row"] = size(facts["state_bytes"])
        shown["tokens that hold 95 % of the influence"] = str(facts["memory_tokens"])
    for kind, radius in facts["spectrum"].items():
        shown[f"eigenvalues of {kind}"] = f"modulus {radius['least']:.3g} to {radius['most']:.3g}"
    for kind, system in facts["systems"].items():
        if "effective_order" in system:
            order = system["effective_order"]
            told = f"{order['median']} of {system['states']} states keep the gain within 1 %"
            if order["least"] != order["most"]:
                told += f" ({order['least']} to {order['most']} over channels)"
            shown[f"linear system of {kind}"] = told
        else:
            shown[f"linear system of {kind}"] = system["why_not"]
    if "against_hippo" in facts:
        s4d, ptd, bound = (facts["against_hippo"][k] for k in ("s4d_legs_error", "ptd_error", "bound"))
        told = f"{s4d:.3g} (S4D-LegS), {ptd:.3g} (PTD, bound {bound:.3g})"
        shown["largest error against HiPPO-LegS"] = told
    if "against_process" in facts:
        spectrum, weights = (facts["against_process"][k] for k in ("spectrum_error_db", "weight_error"))
        told = f"{spectrum:.3g} dB (root mean square), weights of the past {100 * weights:.3g} %"
        shown["spectrum against that of the process"] = told
    looked = {**_look_back.shown(facts.get("look_back", {})), **_reads.shown(facts.get("layers", {}))}
    return {**shown, **_spent.shown(facts.get("attention_spent", {})), **looked}


def _charts(subject: _Subject, portraits: "dict[str, Portrait]", length: int) -> "list[Chart]":
    import numpy as np

    from hippodrome.analyze import charts, portrait, spectra
    from hippodrome.analyze.memory import effective_memory

    made = []
    body: Any = subject.body
    if getattr(body, "causal", False):
        influence = effective_memory(body, length).influence
        line = charts.Trace("influence", np.arange(length), np.asarray(influence))
        title = "Influence of a token on the last output"
        made.append(
            charts.traces(
                "influence",
                title,
                [line],
                x="tokens ago",
                y="derivative",
                log_y=any(v > 0 for v in influence),
            )
        )
    for kind, mixer in subject.mixers.items():
        made += portrait.drawings(kind, mixer, portraits[kind], length)  # type: ignore[arg-type]
    if subject.legs is not None:
        made += portrait.hippo_fidelity(subject.legs)
    if subject.learned is not None:
        made += spectra.drawings("process", {Path(subject.title).name: subject.learned})
    return made


def _write(
    out: Path | None, png: Path | None, charts: "list[Chart]", subject: _Subject, facts: dict[str, Any]
) -> list[Path]:
    """Each file whole or not at all."""
    from hippodrome.train.checkpoint import write_atomically

    written = []
    if out is not None:
        page = _page(subject.title, facts, charts).encode()
        write_atomically(out, lambda file: file.write(page))
        written.append(out)
    if png is not None:
        png.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            write_atomically(png / f"{chart.name}.png", partial(_fill, chart.png()))
        written.append(png)
    return written


def _fill(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _page(title: str, facts: dict[str, Any], charts: "list[Chart]") -> str:
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in _shown(facts).items())
    figures = "".join(
        f"<figure>{chart.svg()}<figcaption>{escape(chart.note)}</figcaption></figure>" for chart in charts
    )
    return PAGE.format(title=escape(title), facts=cells, charts=figures)

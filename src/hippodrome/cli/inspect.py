"""`hippodrome inspect`: what a mixer, a recipe or a trained model remembers, and what it costs."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, count, size, table
from hippodrome.cli._settings import Assignments, File, Settings

if TYPE_CHECKING:
    from torch import nn

PANEL = "Look things up"

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; }}
td {{ padding: 0 1.5rem 0 0; }} figure {{ margin: 1.5rem 0; }} svg {{ width: 100%; height: auto; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }}
</style></head><body><h1>{title}</h1>
<table>{facts}</table><div class="grid">{charts}</div></body></html>
"""


class _Subject(NamedTuple):
    """What is looked at: a module over (b, t, d), one mixer of each kind in it, the whole model if any."""

    title: str
    body: "nn.Module"
    mixers: "dict[str, nn.Module]"
    whole: "nn.Module"


def command(
    what: Annotated[str, typer.Argument(help="A kind of mixer, a recipe, or a run folder.")],
    length: Annotated[int, typer.Option(min=2, help="Tokens of context.")] = 256,
    width: Annotated[int | None, typer.Option(min=8, help="Channels of a mixer or recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the charts to this HTML file.")] = None,
    device: Device = "cpu",
    assignments: Assignments = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Show kernels, spectrum, memory and cost. Options of a mixer's constructor go by -s name=value."""
    settings = Settings(file, assignments)
    subject = _subject(what, width, present(device), settings.values)
    facts = _facts(subject, length)
    if out is not None:
        out.write_text(_page(subject, facts, length), encoding="utf-8")
    if json:
        as_json(facts)
        return
    table(subject.title, ["what", "value"], list(_shown(facts).items()))
    if out is not None:
        typer.echo(f"charts: {out}")


def _subject(what: str, width: int | None, device: str, options: dict[str, Any]) -> _Subject:
    from hippodrome import config

    if what in config.kinds("mixers"):
        mixer = config.find("mixers", what)
        config.validate({"kind": what, "d_model": width or 64, **options}, "mixers")
        body = mixer(width or 64, **options).to(device)
        return _Subject(what, body, {what: body}, body)
    if options:
        raise ValueError(f"options go to a mixer's constructor; {what!r} is no mixer and takes none")
    from hippodrome import runs
    from hippodrome.cli import _recipes as recipes

    if what in recipes.names():
        spec = recipes.find(what).model.stack(width)
        body = config.build(spec, "backbones").to(device)
        return _Subject(what, body, _mixers(body), body)
    if not Path(what).exists():
        known = [*config.kinds("mixers"), *recipes.names()]
        raise ValueError(f"there is no mixer, recipe or run folder {what!r}{config.suggest(what, known)}")
    model = runs.load(what, device).model
    return _Subject(what, model.backbone, _mixers(model.backbone), model)


def _mixers(body: "nn.Module") -> "dict[str, nn.Module]":
    """The first mixer of each kind inside."""
    from hippodrome.mixers.base import Mixer

    found: dict[str, nn.Module] = {}
    for module in body.modules():
        if isinstance(module, Mixer):
            found.setdefault(type(module).__module__.rsplit(".", 1)[-1], module)
    return found


def _facts(subject: _Subject, length: int) -> dict[str, Any]:
    import torch

    from hippodrome.analyze.cost import count_flops, parameter_count, state_bytes, weight_bytes_read
    from hippodrome.analyze.memory import effective_memory
    from hippodrome.analyze.response import spectrum

    body: Any = subject.body
    x = torch.zeros(1, length, body.d_model, device=next(body.parameters()).device)
    with torch.no_grad():
        flops, uncounted = count_flops(lambda: body(x))
    facts: dict[str, Any] = {
        "parameters": parameter_count(subject.whole),
        "state_bytes": state_bytes(body, length) if body.causal else None,
        "flops_per_token": flops / length,
        "uncounted": list(uncounted),
        "bytes_per_token": weight_bytes_read(subject.whole)
        + (state_bytes(body, length) if body.causal else 0),
        "memory_tokens": effective_memory(body, length).reach if body.causal else None,
        "spectrum": {},
    }
    for kind, mixer in subject.mixers.items():
        values = spectrum(mixer)  # type: ignore[arg-type]
        if values is not None:
            radius = values.norm(dim=-1)
            facts["spectrum"][kind] = {"least": float(radius.min()), "most": float(radius.max())}
    return facts


def _shown(facts: dict[str, Any]) -> dict[str, str]:
    shown = {
        "parameters": count(facts["parameters"]),
        "arithmetic a token": f"{count(facts['flops_per_token'])}FLOP",
        "bytes read a token, decoding": size(facts["bytes_per_token"]),
    }
    if facts["uncounted"]:
        shown["not counted"] = ", ".join(facts["uncounted"])
    if facts["state_bytes"] is not None:
        shown["state of a row"] = size(facts["state_bytes"])
        shown["tokens that hold 95 % of the influence"] = str(facts["memory_tokens"])
    for kind, radius in facts["spectrum"].items():
        shown[f"eigenvalues of {kind}"] = f"modulus {radius['least']:.3g} to {radius['most']:.3g}"
    return shown


def _page(subject: _Subject, facts: dict[str, Any], length: int) -> str:
    from hippodrome.analyze.figures import Line, lines, points_in_plane, styles
    from hippodrome.analyze.memory import effective_memory
    from hippodrome.analyze.response import impulse_response, spectrum

    charts = []
    body: Any = subject.body
    if body.causal:
        influence = effective_memory(body, length).influence
        title = "Influence of a token on the last output"
        line = Line("influence", list(range(length)), influence)
        look = styles(["influence"])
        charts.append(lines([line], look, title=title, x="tokens ago", y="derivative", log_y=True))
    for kind, mixer in subject.mixers.items():
        answer = impulse_response(mixer, length).cpu()  # type: ignore[arg-type]
        channels = [f"channel {i}" for i in range(min(4, answer.shape[1]))]
        series = [Line(name, list(range(length)), answer[:, i].tolist()) for i, name in enumerate(channels)]
        title = f"{kind}: answer to an impulse, {len(channels)} channels"
        charts.append(lines(series, styles(channels), title=title, x="token", y="output"))
        values = spectrum(mixer)  # type: ignore[arg-type]
        if values is not None:
            charts.append(points_in_plane(values.cpu().numpy(), title=f"{kind}: eigenvalues of one step"))
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in _shown(facts).items())
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
    return PAGE.format(title=escape(subject.title), facts=cells, charts=figures)

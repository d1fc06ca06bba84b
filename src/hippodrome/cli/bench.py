"""`hippodrome bench`: how fast operators, layers and models run on this machine, beside rivals and floors."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._options import Device, present, words
from hippodrome.cli._output import table

if TYPE_CHECKING:
    from hippodrome.bench.row import Row

PANEL = "Look things up"


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Operators and mixers by themselves, an operator by each of its backends."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Rows beside rivals, with commas; a name may leave off its last parts.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Rows of one level: op, layer, model or gpu.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the rows and measure nothing.")] = False,
    device: Device = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or both with a comma; all if left out.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Counts with commas: 1,2. All cores if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For each phase of a row, at least --least rounds.")] = 20.0,
    least: Annotated[int, typer.Option(min=1, help="Rounds of each phase, however long they take.")] = 3,
    memory: Annotated[
        bool, typer.Option(help="Measure each contender's peak memory, in a process of its own.")
    ] = True,
    width: Annotated[int, typer.Option(min=8, help="Channels of the mixers named.")] = 256,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the mixers named, or of --explain.")] = 1024,
    tiny: Annotated[bool, typer.Option("--tiny", help="Sizes that only show that everything runs.")] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the numbers here; - for the terminal.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables here.")] = None,
    show: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure nothing: read numbers written by --json.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD.json NEW.json", help="Name what got slower between two runs."),
    ] = None,
    commits: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="Measure two commits in turns; `here`: the files as they are."),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(min=1.0, help="Exit with 1 where something took more than so many times as long."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Which backends a pattern, recipe or run folder uses, and why."),
    ] = None,
    settled: Annotated[bool, typer.Option("--settled", hidden=True)] = False,
) -> None:
    """Time operators, layers and models beside rivals and floors; compare two runs; explain backends."""
    if listed:
        _list(level)
        return
    if show is not None:
        _show(show, json, markdown)
        return
    if compare is not None:
        _compare(*compare, fail_above)
        return
    dtypes = _dtypes(dtype)
    if explain is not None:
        _explain(explain, present(device), min(length, 64), dtypes[0] if dtypes else "float32", json)
        return
    counts = _counts(threads)
    chosen = _chosen(names or [], rows, level, device, width, length)
    if commits is not None:
        _commits(*commits, chosen, dtypes, counts[0], seconds, least, device, tiny, json, fail_above)
        return
    if not settled and (code := _settled(max(counts))) is not None:
        raise typer.Exit(code)
    _run(chosen, counts, (seconds, least), device, dtypes, tiny, memory and not tiny, json, markdown)


def _settled(threads: int) -> int | None:
    """Run anew under the allocator's settings; the exit code, or None where there are none to set."""
    from hippodrome.bench.process import settled

    again = settled(["-m", "hippodrome", *words.get(), "--settled"], threads)
    return None if again is None else subprocess.call(again)


def _counts(text: str | None) -> list[int]:
    if text is None:
        return [os.cpu_count() or 1]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise ValueError(f"--threads takes counts with commas between them, such as 1,2; got {text!r}")
    return counts


def _dtypes(text: str | None) -> list[str]:
    found = [part.strip() for part in text.split(",")] if text else []
    for word in found:
        if word not in ("float32", "bfloat16"):
            raise ValueError(f"--dtype is float32, bfloat16, or both with a comma between them; got {word!r}")
    return found


def _chosen(
    names: list[str], rows: str | None, level: str | None, device: str, width: int, length: int
) -> "list[Row]":
    """The rows that the command line asks for; those of the level gpu alone where only a GPU was named."""
    from hippodrome.bench.rows import chosen, of_name

    found = [row for name in names for row in of_name(name, width, length)]
    if names and rows is None and level is None:
        return found
    wanted = [part.strip() for part in (rows or "").split(",") if part.strip()]
    if rows is not None and not wanted:
        raise ValueError("--rows takes names with commas between them; got none. See bench --list.")
    if not wanted and level is None and device.startswith("cuda"):
        level = "gpu"
    listed = chosen(wanted, level)
    if not listed:
        raise ValueError(f"there is no row of the level {level!r} among {rows}. See bench --list.")
    return found + listed


def _list(level: str | None) -> None:
    from hippodrome.bench.rows import chosen

    columns = ["row", "level", "dtypes", "what", "rivals"]
    cells = [[r.name, r.level, ", ".join(r.dtypes), r.title, ", ".join(r.rivals)] for r in chosen([], level)]
    table("rows", columns, cells)


def _typed() -> str:
    """The command as a reader would type it, without the files that it writes."""
    kept: list[str] = []
    skip = False
    for word in words.get():
        if skip or word in ("--settled", "--debug"):
            skip = False
        elif word in ("--json", "--markdown"):
            skip = True
        elif not word.startswith(("--json=", "--markdown=")):
            kept.append(word)
    return shlex.join(["hippodrome", *kept])


def _run(
    rows: "list[Row]",
    threads: list[int],
    pace: tuple[float, int],
    device: str,
    dtypes: list[str],
    tiny: bool,
    memory: bool,
    json: str | None,
    markdown: Path | None,
) -> None:
    import torch

    from hippodrome.bench import page
    from hippodrome.bench.row import Pace
    from hippodrome.bench.run import NO_CUDA, run

    if device.startswith("cuda") and not torch.cuda.is_available():
        for row in rows:
            typer.echo(f"{row.name}: {NO_CUDA}")
        raise typer.Exit(2)
    quiet = json == "-"
    found = run(
        rows,
        threads,
        Pace(*pace),
        device=torch.device(present(device)),
        dtypes=dtypes,
        tiny=tiny,
        memory=memory,
        show=lambda timings: None if quiet else typer.echo(page.text(timings)),
        tell=lambda sentence: typer.echo(sentence, err=quiet),
    )
    about = page.facts(_typed(), found.notes)
    _write(json, page.as_json(found.timings, about))
    if markdown is not None:
        markdown.write_text(page.markdown(found.timings, about), encoding="utf-8")
    if found.failed:
        typer.echo(f"failed: {', '.join(dict.fromkeys(found.failed))}", err=True)
        raise typer.Exit(1)
    if rows and all(row.level == "gpu" for row in rows) and not found.timings:
        raise typer.Exit(2)


def _write(json: str | None, text: str) -> None:
    if json == "-":
        typer.echo(text, nl=False)
    elif json is not None:
        Path(json).parent.mkdir(parents=True, exist_ok=True)
        Path(json).write_text(text, encoding="utf-8")


def _show(file: Path, json: str | None, markdown: Path | None) -> None:
    from hippodrome.bench import page

    timings, about = page.from_json(file)
    if json != "-":
        typer.echo(page.text(timings))
        for row, sentences in about.get("notes", {}).items():
            for sentence in sentences:
                typer.echo(f"{row}: {sentence}")
    _write(json, page.as_json(timings, about))
    if markdown is not None:
        markdown.write_text(page.markdown(timings, about), encoding="utf-8")


def _compare(old: Path, new: Path, fail_above: float | None) -> None:
    from hippodrome.bench import page

    (before, first), (after, second) = page.from_json(old), page.from_json(new)
    if first.get("machine", {}).get("processor") != second.get("machine", {}).get("processor"):
        typer.echo("The runs are of different machines: the changes say nothing about the code.", err=True)
    _tell_changes(before, after, fail_above)


def _tell_changes(before: Any, after: Any, fail_above: float | None) -> None:
    from hippodrome.bench.compare import compare, text, worst

    found = compare(before, after)
    typer.echo(text(found))
    if fail_above is not None and worst(found) > fail_above:
        raise typer.Exit(1)


def _commits(
    old: str,
    new: str,
    rows: "list[Row]",
    dtypes: list[str],
    threads: int,
    seconds: float,
    least: int,
    device: str,
    tiny: bool,
    json: str | None,
    fail_above: float | None,
) -> None:
    from hippodrome.bench import commits, page

    names = [row.name for row in rows if row.level != "gpu" or device.startswith("cuda")]
    one, two = commits.measured(
        old,
        new,
        names,
        dtypes=dtypes or ["float32", "bfloat16"],
        threads=threads,
        seconds=seconds,
        least=least,
        rounds=1 if tiny else 3,
        device=device,
        tiny=tiny,
        tell=lambda sentence: typer.echo(sentence, err=True),
    )
    for side in (one, two):
        for row, why in side.failed.items():
            typer.echo(f"{row} at {side.commit}: failed: {' '.join(why.split())}")
    if json is not None:
        _write(json, page.as_json(two.timings, page.facts(_typed())))
    _tell_changes(one.timings, two.timings, fail_above)


def _explain(what: str, device: str, length: int, dtype: str, json: str | None) -> None:
    import torch

    from hippodrome.bench.explain import lines, uses

    body, tokens = _body(what, device, length)
    found = uses(body, tokens, torch.device(device), getattr(torch, dtype))
    if json is not None:
        from hippodrome.cli._output import as_json

        told = [{**use._asdict(), "refusals": dict(use.refusals), "why": use.why()} for use in found]
        if json == "-":
            as_json(told)
        else:
            import json as writer

            _write(json, writer.dumps(told, indent=2) + "\n")
        return
    columns = ["phase", "operator", "backend", "calls", "why none that comes before it"]
    table(f"{what}, {dtype}, {device}", columns, list(lines(found)))
    if not found:
        typer.echo(f"{what} calls no operator with backends: it is written in PyTorch's own operations.")


def _body(what: str, device: str, length: int) -> tuple[Any, int]:
    """What maps (b, t, d) to (b, t, d) in a pattern, a recipe or a run folder, and a length that it takes."""
    from hippodrome import checkpoints, config
    from hippodrome.backbones.s4nd import S4ND
    from hippodrome.config import published as recipes

    if what in recipes.names():
        spec = recipes.find(what).model.stack()
        if spec is None:
            raise ValueError(f"{what!r} is one linear map of the window, and calls no operator with backends")
        body = config.build(spec, "backbones").to(device)
    elif Path(what).exists():
        body = checkpoints.open_model(what, device).model.backbone
    else:
        try:
            spec = config.stack_spec(what, 64, options=config.with_small_sizes(what, None, 64, length))
        except ValueError as error:
            raise ValueError(f"{what!r} is no recipe, no run folder and no pattern: {error}") from None
        body = config.build(spec, "backbones").to(device)
    grids = [module for module in body.modules() if isinstance(module, S4ND)]
    size = 1
    for extent in grids[0].sizes if grids else []:
        size *= extent
    return body, size if grids else length

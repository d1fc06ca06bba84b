"""`hippodrome identify`: the law of motion behind a table of states, as equations or as a matrix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._options import Json
from hippodrome.cli._output import as_json, table

if TYPE_CHECKING:
    from hippodrome.analyze.charts import Chart
    from hippodrome.data.trajectories import Trajectories

PANEL = "Look things up"

METHODS = ("sindy", "dmd", "havok")

SHOWN = 15
"""Rows and columns of a matrix that a terminal is given; --json has all."""

DRAWN = 2000
"""Steps that a picture shows at most."""

INNER = 10
"""Steps of integration from one row to the next, whatever time counts in: rows are dense, or no derivative
could be read off them."""


def command(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet table: a row a time, a column a state.")],
    method: Annotated[
        str, typer.Option(help="sindy (sparse equations), dmd (a linear map) or havok (forced linear).")
    ] = "sindy",
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="The states; all columns but the time if left out.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The column of times; found by its name if left out.")
    ] = None,
    dt: Annotated[float | None, typer.Option(help="Time between rows, in place of that column.")] = None,
    degree: Annotated[
        int | None, typer.Option(help="sindy: highest power of the terms. [default: 2]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="sindy: smaller coefficients are zero. [default: 0.1]")
    ] = None,
    delays: Annotated[
        int | None, typer.Option(help="dmd, havok: rows of a window. [default: dmd 1, havok 100]")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="dmd, havok: coordinates kept. [default: dmd all, havok 15]")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the data beside what the law makes of it.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the law of motion in trajectories: equations by SINDy, a linear map by DMD, HAVOK's forced system.

    Rows of one unique_id are one trajectory, and no window or derivative crosses from one to the next. SINDy
    reads derivatives off the rows by differences of fourth order, so its rows are to be dense in time and
    free of noise. DMD with --delays reads windows (Hankel-DMD). HAVOK reads one column of one trajectory.
    """
    from hippodrome.data.trajectories import read_trajectories

    if method not in METHODS:
        raise ValueError(f"--method is one of {', '.join(METHODS)}; got {method!r}")
    given = {"degree": degree, "threshold": threshold, "delays": delays, "rank": rank}
    own = ("degree", "threshold") if method == "sindy" else ("delays", "rank")
    for name, value in given.items():
        if value is not None and name not in own:
            raise ValueError(f"{method} has no --{name}; it takes {' and '.join('--' + one for one in own)}")
    if png is not None and (png.suffix.lower() != ".png" or not png.parent.is_dir()):
        raise ValueError(f"--png names a .png file in a folder that is there; got {str(png)!r}")
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    read = read_trajectories(source, columns=names, time=time, dt=dt)
    options = {name: given[name] for name in own if given[name] is not None}
    told, chart = {"sindy": _sindy, "dmd": _dmd, "havok": _havok}[method](read, options, not json)
    if png is not None:
        from hippodrome.train.checkpoint import write_atomically

        content = chart.png()
        write_atomically(png, lambda file: file.write(content))
    if json:
        as_json({"method": method, "states": read.names, "dt": read.dt, "unit": read.unit, **told})
        return
    rows, paths = sum(map(len, read.paths)), len(read.paths)
    said = "a step a row (--dt gives its length)" if read.unit == "rows" else f"a step of {read.dt:g}"
    said += " seconds" if read.unit == "seconds" else ""
    typer.echo(f"{rows} rows in {paths} {'trajectory' if paths == 1 else 'trajectories'}, {said}")


def _sindy(read: "Trajectories", options: dict[str, Any], say: bool) -> "tuple[dict[str, Any], Chart]":
    import numpy as np

    from hippodrome.analyze.sindy import derivatives, identify
    from hippodrome.data.dynamics import integrate

    long = [path for path in read.paths if len(path) >= 5]
    if not long:
        raise ValueError("a derivative is taken over five rows of a trajectory, and none here has as many")
    states = np.concatenate([path[2:-2] for path in long])
    rates = np.concatenate([derivatives(path, read.dt) for path in long])
    law = identify(states, rates, **options)
    if rates.any() and not law.coefficients.any():
        dated = ", or --dt 1 to count time in rows and not in seconds" if read.unit == "seconds" else ""
        raise ValueError(
            f"no coefficient of the law is as large as the threshold. Give a lower --threshold{dated}"
        )
    equations = law.equations(read.names)
    if say:
        for line in equations:
            typer.echo(line)
        typer.echo("explained of each: " + ", ".join(f"{share:.4%}" for share in law.r2))
    path = max(read.paths, key=len)[:DRAWN]
    with np.errstate(all="ignore"):
        made = integrate(law.rates, path[0], read.dt, len(path) - 1, INNER)
    told = {
        "equations": equations,
        "powers": law.powers.tolist(),
        "coefficients": law.coefficients.tolist(),
        "r2": law.r2.tolist(),
    }
    return told, _beside(read, path, made, "SINDy: the equations from the first row on")


def _dmd(read: "Trajectories", options: dict[str, Any], say: bool) -> "tuple[dict[str, Any], Chart]":
    import numpy as np

    from hippodrome.analyze.havok import dmd

    law = dmd(read.paths, **options)
    delays = len(law.A) // law.states
    with np.errstate(divide="ignore"):  # an eigenvalue of zero is gone in a step: its rate has no bound
        logs = np.log(law.eigenvalues.astype(complex)) / read.dt
    if say:
        labels = [f"{name}(t{f'-{k}' if k else ''})" for k in range(delays) for name in read.names][:SHOWN]
        rows = zip(read.names, law.A[:SHOWN, :SHOWN], strict=False)
        lines = [[f"{name}(t+1)", *map(_number, row)] for name, row in rows]
        table("", ["", *labels], lines, named=True)
        parts = list(zip(law.eigenvalues, logs, strict=True))[:SHOWN]
        head = ["eigenvalue, size", "growth a unit of time", "cycles a unit of time"]
        cells = ((abs(z), s.real, abs(s.imag) / (2 * np.pi)) for z, s in parts)
        table("", head, [[*map(_number, row)] for row in cells], named=True)
    path = max(read.paths, key=len)[:DRAWN]
    with np.errstate(all="ignore"):
        made = np.concatenate([path[:delays], law.roll_out(path[:delays], max(len(path) - delays, 1))])
    told_all = {
        "delays": delays,
        "A": law.A.tolist(),
        "eigenvalues": [[float(z.real), float(z.imag)] for z in law.eigenvalues],
        "rates": [[float(s.real), float(s.imag)] for s in logs],
    }
    return told_all, _beside(read, path, made[: len(path)], "DMD: the map from the first window on")


def _havok(read: "Trajectories", options: dict[str, Any], say: bool) -> "tuple[dict[str, Any], Chart]":
    import numpy as np

    from hippodrome.analyze.charts import Trace, traces
    from hippodrome.analyze.havok import havok

    if len(read.names) != 1 or len(read.paths) != 1:
        raise ValueError(
            f"HAVOK reads one measurement of one trajectory; got {len(read.names)} columns "
            f"({', '.join(read.names)}) and {len(read.paths)} trajectories. Name a column with --columns"
        )
    found = havok(read.paths[0][:, 0], read.dt, **options)
    if say:
        whole = np.concatenate([found.A, found.B], 1)[:SHOWN, :SHOWN]
        head = ["", *[f"v{i + 1}" for i in range(whole.shape[1])]]
        cells = [[f"dv{i + 1}/dt", *map(_number, row)] for i, row in enumerate(whole)]
        table("", head, cells, named=True)
        typer.echo(
            f"the last of {len(found.singular)} coordinates forces the others; they hold {found.energy:.4%} "
            f"of the windows, and the system explains {found.r2.min():.2%} or more of each derivative"
        )
    told = {
        "A": found.A.tolist(),
        "B": found.B.tolist(),
        "singular values": found.singular.tolist(),
        "energy": found.energy,
        "r2": found.r2.tolist(),
    }
    steps = np.arange(len(found.v))[:DRAWN] * read.dt
    lines = [
        Trace("v1, the first", steps, _unit(found.v[:DRAWN, 0]), ink=True),
        Trace(f"v{found.v.shape[1]}, the forcing", steps, _unit(found.v[:DRAWN, -1])),
    ]
    title = "HAVOK: first coordinate and forcing"
    return told, traces("havok", title, lines, x=_time(read), y="deviations", width=7.5)


def _beside(read: "Trajectories", path: Any, made: Any, title: str) -> "Chart":
    """The states of a trajectory in ink, and beside each what the law makes of it, while it stays near."""
    import numpy as np

    from hippodrome.analyze.charts import Trace, traces

    steps = np.arange(len(path)) * read.dt
    low, high = path.min(), path.max()
    room = 0.5 * (high - low) or 1.0
    made = np.where((made > low - room) & (made < high + room), made, np.nan)
    lines = [Trace(f"{name}, by the law", steps, made[:, i]) for i, name in enumerate(read.names)]
    # A name that begins with an underscore stays out of the legend: all data are drawn alike.
    lines += [Trace("_" if i else "the data", steps, column, ink=True) for i, column in enumerate(path.T)]
    return traces("law", title, lines, x=_time(read), y="state", width=7.5)


def _time(read: "Trajectories") -> str:
    return "time" if read.unit == "units" else f"time, {read.unit}"


def _unit(values: Any) -> Any:
    return values / (values.std() or 1.0)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e-6 else "0"

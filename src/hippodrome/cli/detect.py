"""`hippodrome detect`: which steps of the series of a table stand out from what they lead to expect."""

import json as plain_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._options import Device, Json, present, typed
from hippodrome.cli._tables import frame_of, refuse_beside_run, results_folder, told

if TYPE_CHECKING:
    import numpy
    import pandas

PANEL = "Use a model"


def command(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet table, long (unique_id, ds, y) or wide.")],
    run: Annotated[
        Path | None, typer.Option(help="A run folder of a detector to use, instead of training one.")
    ] = None,
    learn_from: Annotated[
        Path | None,
        typer.Option(help="A table to learn from what is usual. [default: the table itself]"),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="A column of 0 and 1, 1 for anomalies, to measure scores by.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="forecast: from the steps before. reconstruction: from both sides.")
    ] = "forecast",
    model: Annotated[
        str | None, typer.Option(help="A mixer or a pattern. [default: s4d, or bi-s4d which reads both ways]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write, which must be new. [default: NAME-detected]")
    ] = None,
    budget: Annotated[str, typer.Option(help="Of training: 60s, 2m, 500steps.")] = "60s",
    window: Annotated[int, typer.Option(min=2, help="Steps that are read.")] = 96,
    horizon: Annotated[int, typer.Option(min=1, help="Steps that are foretold.")] = 1,
    block: Annotated[int, typer.Option(min=1, help="Steps that are reconstructed together.")] = 8,
    smooth: Annotated[int, typer.Option(min=1, help="Steps that a score is averaged over.")] = 1,
    across: Annotated[str, typer.Option(help="rms or max over the variates of a step.")] = "rms",
    contamination: Annotated[float, typer.Option(help="Share of the steps learned from to flag.")] = 0.01,
    column: Annotated[
        list[str] | None, typer.Option(help="A column to watch; again for more. [default: all]")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Channels of the model.")] = 64,
    depth: Annotated[int, typer.Option(min=1, help="Layers.")] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score each step of a table by its error under a model that learned what is usual, and flag the highest.

    Writes a folder: scores.csv, the table with a score and a flag for each step; detected.png; metrics.json
    where there are labels: AUROC, AUPRC and the best F1 of single steps, which are not adjusted (a stretch
    does not count as found because one step of it was flagged: that inflates F1); and run, the trained model.
    """
    from hippodrome.estimators import AnomalyDetector, load
    from hippodrome.train.checkpoint import write_folder

    frame, truth = _labelled(source, labels)
    folder = results_folder(out, source, "detected")
    if run is not None:
        refuse_beside_run("labels", "out", "column", "device", "json")
        detector: Any = load(run, present(device))
        if not isinstance(detector, AnomalyDetector):
            raise ValueError(f"{run} holds a model for {detector.run_.spec['kind']}, which is no detector")
        detector.set_params(targets=column)
        _check(source, detector.targets, labels)
    else:
        other = "block" if method == "forecast" else "horizon"
        if f"--{other}" in typed():
            raise ValueError(
                f"--{other} says nothing to the method {method!r}: leave it out, or take the other"
            )
        detector = AnomalyDetector(
            method,  # type: ignore[arg-type]  # a word from the user, which the detector checks
            model, window, horizon, block, smooth, across,  # type: ignore[arg-type]
            contamination, column, budget=budget, width=width, depth=depth, seed=seed, device=present(device),
        )  # fmt: skip
        _check(source, column, labels)
        usual = frame if learn_from is None else _labelled(learn_from, labels, needed=False)[0]
        if learn_from is not None:
            _check(learn_from, column, None)
        detector.fit(usual)
    found = detector.predict(frame)
    table = frame.assign(score=found["score"].to_numpy(), anomaly=found["anomaly"].to_numpy())
    metrics = None
    if truth is not None:
        metrics = detector.measure(frame, truth)
        table[labels] = truth
    picture = detector.chart(frame, truth, f"{source.name}: {detector.method} by {_name(detector)}").png

    def fill(place: Path) -> None:
        table.to_csv(place / "scores.csv", index=False)
        (place / "detected.png").write_bytes(picture)
        if run is None:
            detector.save(place / "run")
        if metrics is not None:
            text = plain_json.dumps(metrics, indent=2) + "\n"
            (place / "metrics.json").write_text(text, encoding="utf-8")

    write_folder(folder, fill)
    flagged = int(found["anomaly"].sum())
    values = {"flagged": flagged, "steps": len(found), "threshold": detector.threshold_, **(metrics or {})}
    rows = [[name, value if isinstance(value, int) else f"{value:.4f}"] for name, value in values.items()]
    told({"out": str(folder), **values}, source.name, ["what", "value"], rows, json)
    typer.echo(f"{flagged} of {len(found)} steps flagged: {folder / 'scores.csv'}", err=True)


def _name(detector: Any) -> str:
    return detector.model or ("s4d" if detector.method == "forecast" else "bi-s4d")


def _labelled(
    source: Path, labels: str | None, needed: bool = True
) -> "tuple[pandas.DataFrame, numpy.ndarray | None]":
    """The table without its column of labels, and the labels (true where anomalous).

    Raises:
        ValueError: there is no such column, or a cell of it is neither 0 nor 1.
    """
    from hippodrome.data._table import column, from_frame, numbers
    from hippodrome.data.base import fault

    frame = frame_of(source)
    if labels is None or (labels not in frame.columns and not needed):
        return frame, None
    table = from_frame(frame, str(source))
    words = {"true": "1", "false": "0"}
    cells = [words.get(str(cell).strip().lower(), cell) for cell in column(table, labels)]
    values = numbers(table._replace(columns={**table.columns, labels: cells}), labels)
    for row, value in enumerate(values.tolist(), 1):
        if value not in (0, 1):
            remedy = "Label each step, 1 for an anomaly."
            raise fault(source, "0 or 1", f"{value:g}", remedy, row=row, column=labels)
    return frame.drop(columns=labels), values.astype(bool)


def _check(source: Path, columns: list[str] | None, labels: str | None) -> None:
    """Tell of a fault in the file by row and column, before training."""
    from hippodrome.data._table import from_frame
    from hippodrome.data.imputation import read_grids

    frame = frame_of(source)
    kept = frame if labels is None else frame.drop(columns=labels)
    read_grids(from_frame(kept, str(source)), targets=columns)

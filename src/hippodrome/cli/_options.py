"""Options that several verbs share, each spelt and explained once."""

import shlex
from contextvars import ContextVar
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto.")]


words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())
"""What was typed behind `hippodrome`, set before a verb runs."""


def typed() -> set[str]:
    """The options that were typed, such as --out, and are not their defaults."""
    return {word.partition("=")[0] for word in words.get() if word.startswith("--")} - {"--debug"}


def command_line() -> str:
    """The command as it was typed, for reports and run folders."""
    return shlex.join(["hippodrome", *words.get()])


def present(device: str) -> str:
    """The device a word means on this machine; ValueError in a sentence where there is none such."""
    from hippodrome.race.machine import device_for

    return str(device_for(device))


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them. Raises ValueError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} takes numbers with commas between them, such as 1e-3,3e-3; got {text!r}"
        ) from None

"""`hippodrome load`: many clients at once for a server that speaks the OpenAI protocol."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.cli._opened import text_of
from hippodrome.cli._options import Json, numbers
from hippodrome.cli._output import as_json, table

PANEL = "Look things up"


def command(
    address: Annotated[str, typer.Argument(help="Of the server, such as http://127.0.0.1:8000.")],
    clients: Annotated[str, typer.Option(help="How many at once, with commas.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each number of clients.")] = 30.0,
    tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 64,
    prompts: Annotated[int, typer.Option(min=1, help="Different prompts.")] = 64,
    words: Annotated[int, typer.Option(min=1, help="Of a prompt.")] = 32,
    rough: Annotated[
        bool, typer.Option("--rough", help="Some clients vanish, read slowly, or send what is no request.")
    ] = False,
    api_key_file: Annotated[Path | None, typer.Option(help="A file with the server's key.")] = None,
    json: Json = False,
) -> None:
    """Ask a server from many clients: tokens per second, times, and whether answers are those got alone.

    Exits with 1 where an answer was lost, or differs from what its prompt got alone.
    """
    import asyncio

    from hippodrome.serve.load import Load, Tally, Target, prompts_of, solos

    key = None if api_key_file is None else text_of(api_key_file).strip()
    target = Target(address, key)
    counts = [int(count) for count in numbers(clients, "--clients")]
    if min(counts) < 1:
        raise ValueError(f"--clients takes numbers from 1 on; got {clients!r}")

    async def measured() -> list[Tally]:
        known = await solos(target, prompts_of(prompts, words), tokens)
        return [await Load(target, known, tokens, rough, count).run(count, seconds) for count in counts]

    tallies = asyncio.run(measured())
    if json:
        as_json([_plain(tally) for tally in tallies])
    else:
        _show(tallies)
    if any(tally.wrong for tally in tallies):
        raise typer.Exit(1)


def _plain(tally: Any) -> dict[str, Any]:
    from hippodrome.serve.load import percentile

    return {
        "clients": tally.clients,
        "seconds": tally.seconds,
        "answers": tally.answers,
        "tokens_per_second": tally.tokens / tally.seconds,
        "first_text": {"p50": percentile(tally.first, 0.5), "p99": percentile(tally.first, 0.99)},
        "whole_answer": {"p50": percentile(tally.whole, 0.5), "p99": percentile(tally.whole, 0.99)},
        "happened": dict(tally.happened),
        "wrong": tally.wrong,
        "memory": tally.memory,
    }


def _show(tallies: list[Any]) -> None:
    rows = []
    for tally in map(_plain, tallies):
        first, whole, memory = tally["first_text"], tally["whole_answer"], tally["memory"]
        rows.append([
            str(tally["clients"]), str(tally["answers"]), f"{tally['tokens_per_second']:.1f}",
            f"{first['p50']:.2f} / {first['p99']:.2f}", f"{whole['p50']:.2f} / {whole['p99']:.2f}",
            f"{memory[0] >> 20} to {memory[-1] >> 20}" if memory else "", str(len(tally["wrong"])),
        ])  # fmt: skip
    head = ["clients", "answers", "tokens/s", "first text p50 / p99, s", "answer p50 / p99, s", "memory, MiB"]
    table("Under load", [*head, "wrong"], rows)
    for tally in tallies:
        told = ", ".join(f"{what}: {count}" for what, count in sorted(tally.happened.items()))
        typer.echo(f"{tally.clients} clients: {told}")
        for wrong in tally.wrong[:5]:
            typer.echo(f"  {wrong}")

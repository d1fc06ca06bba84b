"""How the command line is put together: the group of verbs, its way of telling errors, and its start."""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hippodrome import __version__
from hippodrome.cli._errors import sentence
from hippodrome.cli._options import words
from hippodrome.memory import keep_memory


class _Verbs(TyperGroup):
    """Speaks of errors in a sentence on stderr and exits with 2; ``--debug`` shows where they arose."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words.set(tuple(args))
        return super().parse_args(ctx, [word for word in args if word != "--debug"])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        options: list[Any] = [] if found is None else list(found.params)
        for option in options:
            text = getattr(option, "help", None)
            if text:  # Rich would take "[default: 60s]" for markup and leave it out, so it is escaped, once.
                option.help = re.sub(r"(?<!\\)\[", r"\\[", text)
        return found

    def invoke(self, ctx: Any) -> Any:
        if "--debug" in words.get():
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read the output has left, `head` say: nothing is wrong, and nobody is there to be told.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + 13) from None
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"Error: {sentence(error)}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Verbs,
    name="hippodrome",
    help="State space sequence models: race them on your data, keep the winner, run it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"hippodrome {__version__}")
        raise typer.Exit


@app.callback()
def _every_verb(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="Tell it.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose.")] = False,
) -> None:
    keep_memory()


def verbs() -> list[str]:
    """The names of the verbs: the files of this folder."""
    folder = str(Path(__file__).parent)
    return sorted(name for _, name, _ in iter_modules([folder]) if not name.startswith("_"))


for _name in verbs():
    _verb = import_module(f"hippodrome.cli.{_name}")
    app.command(_name, rich_help_panel=_verb.PANEL)(_verb.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on these words, or on those it was called with."""
    app(args=None if arguments is None else list(arguments))

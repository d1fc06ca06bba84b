"""How verbs that write text open a model: where it runs, in what precision, on how many threads."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TextIO

import typer

from hippodrome.cli._options import present

if TYPE_CHECKING:
    from hippodrome.runs import Run
    from hippodrome.text.folder import Words

Threads = Annotated[
    int | None, typer.Option(min=1, help="Of the model's kernels. [default: as many as cores]")
]
Precision = Annotated[
    str | None, typer.Option(help="Of the weights: float32, bfloat16 or int8. [default: as they are stored]")
]

Tokenizer = Annotated[
    Path | None, typer.Option(help="A folder with the tokenizer's files, where the model's has none.")
]

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Sampling(NamedTuple):
    """What is left to chance, as it was asked for; None where it was not."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


def opened(run: Path, device: str, dtype: str | None = None, tokenizer: Path | None = None) -> "Run":
    """The model of a run folder or checkpoint folder; ``int8`` rounds its weights when it has been read."""
    from hippodrome import checkpoints

    if dtype == "int8":
        from hippodrome.quantize.weight_only import weight_only

        found = checkpoints.open_model(run, present(device), tokenizer=tokenizer)
        if "quantized" not in found.details:
            weight_only(found.model)
        return found
    return checkpoints.open_model(run, present(device), dtype=dtype, tokenizer=tokenizer)


def words_of(run: "Run") -> "Words":
    """How a language model reads and writes text.

    Raises:
        ValueError: it is no language model, or has no tokenizer.
    """
    from hippodrome.text.folder import byte_words

    if run.details["kind"] != "language":
        raise ValueError(
            f"{run.folder} holds a model for {run.details['kind']}, which writes nothing. Name a run of text."
        )
    if run.tokenizer is None:
        raise ValueError(
            f"{run.folder} holds a model of {run.details['name']} without a tokenizer: what it writes are no "
            "letters. Evaluate it instead, or name its tokenizer with --tokenizer."
        )
    return byte_words(run.tokenizer) if run.words is None else run.words


def text_of(path: Path) -> str:
    """What a text file says. Raises ValueError in a sentence where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from None


def standard_input() -> TextIO:
    """Where prompts and messages come from. Raises ValueError where it was closed."""
    if sys.stdin is None:
        raise ValueError("there is no standard input to read from: it was closed")
    return sys.stdin


def show(text: str) -> None:
    """Text of a model on standard output at once, what would command a terminal marked there as U+FFFD."""
    if sys.stdout.isatty():
        text = _COMMANDS.sub("\ufffd", text)
    typer.echo(text, nl=False)
    sys.stdout.flush()


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """PyTorch's and our kernels on so many threads, each bound to a core; afterwards all is as before."""
    from hippodrome.ops import _threads

    with nullcontext() if count is None else _threads.on_threads(count):
        yield

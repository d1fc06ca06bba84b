"""`hippodrome chat`: a conversation with a language model in the terminal."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hippodrome.cli._opened import (
    Precision,
    Sampling,
    Threads,
    Tokenizer,
    on_threads,
    opened,
    show,
    standard_input,
    text_of,
    words_of,
)
from hippodrome.cli._options import Device
from hippodrome.cli._output import size

if TYPE_CHECKING:
    from hippodrome.generate.conversation import Conversation
    from hippodrome.runs import Run

PANEL = "Use a model"
COMMANDS = {
    "/retry": "answer the last message again",
    "/reset": "begin anew",
    "/save FILE": "write the conversation and the model's state",
    "/load FILE": "take one up",
    "/stats": "tell what was read and written, and how fast",
    "/help": "tell these",
    "/quit": "end; so does Ctrl-D",
}


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a checkpoint.")],
    system: Annotated[str | None, typer.Option(help="A message that stands before all others.")] = None,
    template: Annotated[
        Path | None, typer.Option(help="A Jinja2 chat template, where the model came with none.")
    ] = None,
    load: Annotated[Path | None, typer.Option(help="A conversation that /save wrote.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among the likeliest that hold this share.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Drop what is less likely than this share of the best.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: tokens seen before are less likely.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same.")] = None,
    tokenizer: Tokenizer = None,
    threads: Threads = None,
    dtype: Precision = None,
    device: Device = "cpu",
) -> None:
    """Talk with a model: a line is a message, and the answer comes as it is written.

    The model's state stays between turns, so that an answer costs what is new. Ctrl-C stops an answer;
    /help tells the commands. Lines from a pipe are messages too.
    """
    from hippodrome.cli._text import sampler_of
    from hippodrome.generate.conversation import Conversation

    sampler = sampler_of(Sampling(temperature, top_k, top_p, min_p, repetition_penalty))
    if load is not None and system is not None:
        raise ValueError("--load brings the message that stands before all others; leave --system out")
    with on_threads(threads):
        model = opened(run, device, dtype, tokenizer)
        words = words_of(model)
        if template is not None:
            from hippodrome.text.plain import with_source

            words = with_source(words, text_of(template))
        talk = Conversation(
            model.model, words, sampler=sampler, seed=seed, max_new_tokens=tokens, system=system
        )
        if talk.plain:
            _say(
                f'{run} has no chat template: messages are written as "User: ..." and "Assistant: ...", '
                "which a model that never saw that may not follow. Give one with --template FILE."
            )
        if load is not None:
            talk.load(load, spec=model.spec)
        _Room(talk, model).stay()


class _Room:
    """Where the conversation takes place: reads lines, carries out commands, shows answers."""

    def __init__(self, talk: "Conversation", run: "Run") -> None:
        self.talk, self.run = talk, run
        self.person = standard_input().isatty()
        # Bytes that are no letters are marked, and end no conversation.
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")

    def stay(self) -> None:
        """Until /quit or the end of the lines."""
        if self.person:
            _edit_lines()
            _say("Write a message. /help tells the commands.")
        while (line := self._line()) is not None:
            text = line.strip()
            if text in ("/quit", "/exit"):
                return
            if not text:
                continue
            try:
                if text.startswith("/"):
                    self._carry_out(text)
                else:
                    self._answer(partial(self.talk.ask, text))
            except BrokenPipeError:
                raise
            except (ValueError, OSError) as error:
                # What is wrong with one line ends no conversation.
                _say(str(error))

    def _line(self) -> str | None:
        while True:
            try:
                return input("> " if self.person else "")
            except EOFError:
                if self.person:
                    typer.echo()
                return None
            except KeyboardInterrupt:
                _say("\nCtrl-D or /quit ends the conversation.")

    def _carry_out(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        # The method of Path raises RuntimeError for the home of somebody who is not there.
        path = Path(os.path.expanduser(rest.strip()))
        if name == "/help":
            for what, does in COMMANDS.items():
                _say(f"{what:<12} {does}")
        elif name == "/retry":
            self._answer(self.talk.retry)
        elif name == "/reset":
            self.talk.reset()
            _say("All is forgotten.")
        elif name == "/stats":
            _say(self._stats())
        elif name in ("/save", "/load"):
            if not rest.strip():
                raise ValueError(f"{name} needs the name of a file")
            if name == "/save":
                self.talk.save(path, spec=self.run.spec)
                _say(f"{path}: {size(path.stat().st_size)}")
            else:
                self.talk.load(path, spec=self.run.spec)
                _say(f"{path}: {len(self.talk.messages)} messages")
        else:
            raise ValueError(f"there is no command {name}; /help tells them")

    def _answer(self, begin: Callable[[], Generator[str, None, None]]) -> None:
        """Shows an answer as it comes; Ctrl-C ends it, and again the program."""
        with _interruptible() as stopped:
            answer = begin()
            for piece in answer:
                show(piece)
                if stopped():
                    answer.close()
                    _say("\n(stopped)")
        typer.echo()

    def _stats(self) -> str:
        spent = self.talk.spent
        read = f"read {spent.read} tokens ({_rate(spent.read, spent.reading)})"
        wrote = f"wrote {spent.written} ({_rate(spent.written, spent.writing)})"
        return (
            f"{read}, {wrote}; {spent.kept} were in the state already. "
            f"The state takes {size(self.talk.state_bytes)}."
        )


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is taken down and can be asked for; the second time it interrupts as ever.

    At any moment it would leave a state that is half overwritten; between two tokens it does not.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handler(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _edit_lines() -> None:
    """Line editing and a history of this conversation, where the system has them."""
    try:
        import readline
    except ImportError:
        return
    readline.set_history_length(1000)


def _say(text: str) -> None:
    """What is not the model's goes to standard error."""
    typer.echo(text, err=True)


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} a second" if tokens and seconds > 0 else "none"

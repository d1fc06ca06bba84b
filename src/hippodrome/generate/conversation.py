"""A conversation with a model: messages laid out by a template, and only what is new of them read."""

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hippodrome.generate.continuations import vocabulary
from hippodrome.generate.rows import bytes_of
from hippodrome.generate.sampling import Chooser, Sampler
from hippodrome.generate.session import Point, Session
from hippodrome.models.base import Model
from hippodrome.text.folder import Words, encode, known_ids
from hippodrome.text.template import Template

PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""How messages are laid out for a model that has no template of its own."""
PLAIN_STOPS = ("\nUser:", "\nSystem:", "\nAssistant:")
"""Where an answer so laid out ends: the model goes on with the next turn."""


class Spent(NamedTuple):
    """What a conversation has cost so far."""

    read: int = 0
    """Tokens read, those that were read again among them."""
    written: int = 0
    kept: int = 0
    """Tokens that were not read because the state had them."""
    reading: float = 0.0
    """Seconds."""
    writing: float = 0.0
    """Seconds."""


class Conversation:
    """Questions and answers by turns. The state stays between them, and what was read is not read again.

    The template lays out all messages anew for each turn. Where its tokens begin with those that the state
    has read, only the others are read; otherwise it goes back to before the last answer, and only where the
    template changed what lies before that too is all of it read again.

    Args:
        model: a language model.
        words: its tokenizer, template and ends; without a template messages are laid out as "User: ...".
        sampler: how it chooses.
        seed: of the first answer; the next ones count on from it. None takes them by chance.
        max_new_tokens: of an answer.
        system: a message that stands before all others.

    Raises:
        ValueError: a number out of its range, or a system message that the template refuses.
    """

    messages: list[dict[str, Any]]
    """All so far, in the form of the OpenAI protocol."""

    def __init__(
        self,
        model: Model,
        words: Words,
        *,
        sampler: Sampler = Sampler(),  # noqa: B008
        seed: int | None = None,
        max_new_tokens: int | None = 512,
        system: str | None = None,
    ) -> None:
        sampler.check()
        self.words, self.sampler, self.seed, self.most = words, sampler, seed, max_new_tokens
        self.plain = words.template is None
        self.template = words.template or Template(PLAIN, {})
        self.session = Session(model, words.tokenizer)
        self.spent = Spent()
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self.reset()

    def reset(self) -> None:
        """Forgets all but the system message."""
        self.messages = list(self._system)
        self.session.point = None
        self._before: Point | None = None
        self._answers = 0

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer to a message, piece by piece. Whoever stops asking for pieces ends the answer there.

        Raises:
            ValueError: the template refuses the messages, or writes nothing; they stay as they were.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        answer = self._answer(self._laid_out(asked))
        self.messages = asked
        return answer

    def retry(self) -> Generator[str, None, None]:
        """Another answer to the last message of the user.

        Raises:
            ValueError: there is none.
        """
        asked = list(self.messages)
        while asked and asked[-1]["role"] == "assistant":
            asked.pop()
        if not asked or asked[-1]["role"] != "user":
            raise ValueError("there is no message yet that could be answered again.")
        answer = self._answer(self._laid_out(asked))
        self.messages = asked
        return answer

    def save(self, path: str | Path, *, spec: Mapping[str, Any] | None = None) -> None:
        """Writes the conversation to a file: its messages and the model's state.

        Raises:
            ValueError: nothing has been said yet.
            OSError: the file cannot be written.
        """
        notes = {"messages": self.messages, "answers": self._answers, "system": self._system}
        self.session.save(path, spec=spec, notes=notes)

    def load(self, path: str | Path, *, spec: Mapping[str, Any] | None = None) -> None:
        """Takes a saved conversation up.

        Raises:
            ValueError: as ``snapshot.load``, or the file holds no conversation.
        """
        point = self.session.point
        notes = self.session.load(path, spec=spec).notes
        if not isinstance(notes.get("messages"), list):
            self.session.point = point
            raise ValueError(f"{path} holds a text and no conversation. Go on from it with generate --state.")
        self.messages, self._answers = list(notes["messages"]), int(notes.get("answers", 0))
        self._system, self._before = list(notes.get("system", [])), None

    @property
    def state_bytes(self) -> int:
        """The memory of the state that is kept between turns."""
        return 0 if self.session.point is None else bytes_of(self.session.point.state)

    def _laid_out(self, messages: list[dict[str, Any]]) -> list[int]:
        text = self.template.render(messages, add_generation_prompt=True)
        return encode(self.words, text, special=self.plain)

    def _answer(self, ids: list[int]) -> Generator[str, None, None]:
        began = time.perf_counter()
        kept = self._go_back(ids)
        self.session.read(ids[kept:])
        self._before = self.session.point
        spent = self.spent
        self.spent = spent._replace(
            read=spent.read + len(ids) - kept,
            kept=spent.kept + kept,
            reading=spent.reading + time.perf_counter() - began,
        )
        model = self.session.model
        words = known_ids(self.words.tokenizer)
        chooser = Chooser(
            self.sampler,
            vocab_size=min(words, vocabulary(model)),
            seed=None if self.seed is None else self.seed + self._answers,
            prompt=ids,
        )
        self._answers += 1
        pieces = self.session.write(
            chooser,
            max_new_tokens=self.most,
            ends=self.words.ends,
            stops=PLAIN_STOPS if self.plain else (),
            apart=True,
        )
        return self._told(pieces)

    def _told(self, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        said, began = "", time.perf_counter()
        try:
            for piece in pieces:
                said += piece
                yield piece
        finally:
            pieces.close()
            self.messages.append({"role": "assistant", "content": said})
            self.spent = self.spent._replace(
                written=self.spent.written + len(self.session.chosen),
                writing=self.spent.writing + time.perf_counter() - began,
            )

    def _go_back(self, ids: list[int]) -> int:
        """Goes to the latest known point that these tokens begin with; how many they are."""
        points: list[Point] = [p for p in (self.session.point, self._before) if p is not None]
        fits = [point for point in points if point.ids == tuple(ids[: len(point.ids)])]
        self.session.point = max(fits, key=lambda point: len(point.ids), default=None)
        return len(self.session.ids)

"""Conversations and documents in JSON lines: what a checkpoint is fine-tuned on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hippodrome.data._packed import Document, packed_task
from hippodrome.data.base import Task, fault, shown
from hippodrome.data.text import choose_words, token_bytes
from hippodrome.text import plain
from hippodrome.text.folder import Words

FORMS = (
    '{"messages": [{"role": ..., "content": ...}, ...]}, {"prompt": ..., "completion": ...} or {"text": ...}'
)
"""What a line may hold; further keys are left alone, but for "tools" beside messages."""

_AT_ONCE = 256
"""Texts that are handed to the tokenizer together."""


class Text(NamedTuple):
    """A line as text: where in it to learn (start, end), None for all; whether it is a document by itself,
    that begins and ends as the tokenizer says, or a chat, of which the template says it."""

    text: str
    places: list[tuple[int, int]] | None
    whole: bool


def open_chat(
    path: str | Path,
    *,
    length: int = 512,
    tokenizer: str | int = "bytes",
    template: str | None = None,
    learn: str = "assistant",
    valid: float = 0.05,
    seed: int = 0,
) -> Task:
    """A language task of JSON lines, each a conversation or a document of its own.

    A line is ``{"messages": [...]}``, laid out by the chat template; ``{"prompt": ..., "completion": ...}``,
    of which the completion is learned; or ``{"text": ...}``. Lines of the three may be mixed. What the
    assistant says is learned with the end of its turn, and what others say is read. Documents are packed into
    rows, each of them starting afresh.

    Args:
        path: a file in UTF-8, a JSON object a line; empty lines are left out.
        length: tokens a row; a longer conversation is cut.
        tokenizer: "bytes", the size of a vocabulary to learn from the lines, the path of a
            ``tokenizer.json``, or a folder with one: a checkpoint's, which brings its chat template.
        template: the path of a chat template in Jinja, or "plain"; None takes the tokenizer folder's, and the
            plain one where that has none.
        learn: "assistant", or "all" that is read.
        valid: share of the lines to validate on; as many test.
        seed: of the draw of these.

    Raises:
        ValueError: no such file, a line that is none of the three or that the template refuses (with its
            number), too few lines, or an option that cannot be meant.
    """
    path = Path(path)
    if learn not in ("assistant", "all"):
        raise ValueError(f"what is learned is 'assistant' or 'all'; got {learn!r}. Choose one of them.")
    lines = list(_lines(path))
    sample = "" if isinstance(tokenizer, str) and not tokenizer.isdigit() else "\n".join(_strings(lines))
    words = plain.with_ends(choose_words(tokenizer, sample))
    words, said = _with_template(words, template)
    texts = []
    for number, line in lines:
        try:
            texts.append(_text(line, words, learn))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    documents = list(_documents(texts, words))
    for (number, _), document in zip(lines, documents, strict=True):
        if not document.learned.any():
            raise ValueError(
                f"{path}, line {number}: nothing is said by the assistant, so there is nothing to learn. "
                "Remove the line, or give -s data.learn=all"
            )
    details = {"source": str(path), "lines": len(lines), "learn": learn, "template": said}
    return packed_task(
        documents,
        words,
        path,
        length=length,
        valid=valid,
        seed=seed,
        lengths=token_bytes(words.tokenizer),
        details=details,
    )


def is_chat(path: Path) -> bool:
    """Whether the first line of a file is a JSON object with one of the keys that are read here.

    So that a log in JSON lines stays a text, and a file whose first line is broken is told of it.
    """
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return True
    return isinstance(found, dict) and any(key in found for key in ("messages", "prompt", "text"))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not empty."""
    raw = path.read_bytes()
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if b"\\ud" in line.lower():  # half a letter perhaps, which no tokenizer reads
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise fault(
                f"{path}, line {number}",
                "a JSON object in UTF-8",
                f"{shown(line.decode(errors='replace'))} ({error})",
                "Correct the line, or name the file .txt to read it as plain text.",
            ) from None
        if not isinstance(found, dict):
            raise fault(
                f"{path}, line {number}", f"an object such as {FORMS}", shown(found), "Correct the line."
            )
        yield number, found


def _strings(lines: list[tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """What is written in the lines, for a vocabulary to be learned from."""
    for _, line in lines:
        messages = line.get("messages")
        told = (
            [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
        )
        for value in (*told, line.get("prompt"), line.get("completion"), line.get("text")):
            if isinstance(value, str):
                yield value


def _with_template(words: Words, choice: str | None) -> tuple[Words, str]:
    """The words with the template that is asked for, and a name for it."""
    if choice is None:
        return plain.with_template(words), "plain" if words.template is None else "the tokenizer's"
    if choice == "plain":
        return plain.with_template(words._replace(template=None)), choice
    try:
        source = Path(choice).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"a chat template is 'plain' or the path of a file in Jinja; {choice!r} cannot be read: {error}. "
            "Correct the path, or leave it out."
        ) from None
    return plain.with_source(words, source), choice


def _text(line: dict[str, Any], words: Words, learn: str) -> Text:
    """What a line says and where it is learned; raises ValueError without the place."""
    if "messages" in line:
        messages = line["messages"]
        if not isinstance(messages, list) or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
        ):
            raise ValueError(
                f"messages are a list of objects with a role and a content; got {shown(messages)}. Correct "
                "the line."
            )
        assert words.template is not None
        tools = line.get("tools")
        if learn == "all":
            return Text(
                words.template.render(messages, add_generation_prompt=False, tools=tools), None, False
            )
        text, places = words.template.said(messages, tools)
        return Text(text, places, False)
    if "prompt" in line or "completion" in line:
        prompt, completion = line.get("prompt"), line.get("completion")
        if not (isinstance(prompt, str) and isinstance(completion, str)):
            raise ValueError(
                f"a prompt and its completion are texts; got {shown(prompt)} and {shown(completion)}. Give "
                'both as texts, or a conversation as "messages".'
            )
        end = len(prompt) + len(completion)
        return Text(prompt + completion, None if learn == "all" else [(len(prompt), end)], True)
    if isinstance(line.get("text"), str):
        return Text(line["text"], None, True)
    raise ValueError(f"a line is {FORMS}; got the keys {shown(', '.join(line))}. Rename them.")


def _documents(texts: list[Text], words: Words) -> Iterator[Document]:
    """Tokens and what to learn of them: each token that holds a letter to be learned, and the end."""
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        read: dict[int, Any] = {}
        for whole in (True, False):
            chosen = [i for i, one in enumerate(some) if one.whole == whole]
            found = words.tokenizer.encode_batch([some[i].text for i in chosen], add_special_tokens=whole)
            read |= dict(zip(chosen, found, strict=True))
        for i, one in enumerate(some):
            yield _document(read[i], one, words)


def _document(encoding: Any, one: Text, words: Words) -> Document:
    ids = np.array(encoding.ids, dtype=np.int32)
    spans = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    if one.places is None:
        learned = np.ones(len(ids), bool)
    else:
        first, last = spans.T
        # Of a token that is a space alone some tokenizers say that it has no letters: it has the one before.
        before = np.append(0, np.maximum.accumulate(last)[:-1])[: len(last)]
        first = np.where(first == last, np.minimum(first, before), first)
        learned = np.zeros(len(ids), bool)
        for start, end in one.places:
            learned |= (last > start) & (first < end) & (last > first)
    if one.whole:
        if words.add_bos and words.bos is not None and ids[:1].tolist() != [words.bos]:
            ids, learned = np.append(np.int32(words.bos), ids), np.append(False, learned)
        end = words.ends[0]
        if ids[-1:].tolist() != [end]:
            ids, learned = np.append(ids, np.int32(end)), np.append(learned, True)
        else:
            learned[-1] = True
    return Document(ids, learned)

"""What `hippodrome generate` does with a model of text: prompts in, texts out, as they come."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from hippodrome.cli._opened import Sampling, show, standard_input, text_of, words_of
from hippodrome.cli._output import as_json

if TYPE_CHECKING:
    from hippodrome.generate.constraint import Grammar
    from hippodrome.generate.sampling import Chosen, Sampler
    from hippodrome.runs import Run
    from hippodrome.text.folder import Words


class TextOptions(NamedTuple):
    """The options of the verb."""

    prompt: list[str]
    prompts: Path | None
    tokens: int
    rows: int
    stops: list[str]
    regex: str | None
    json_schema: Path | None
    beams: int | None
    chat: bool
    system: str | None
    logprobs: int | None
    state: Path | None
    save_state: Path | None
    sampling: Sampling
    seed: int | None
    stats: bool
    json: bool


class Text(NamedTuple):
    """A text that was written."""

    prompt: str
    text: str
    finish_reason: str | None
    tokens: int
    logprobs: list[dict[str, Any]] | None = None
    score: float | None = None
    """Of a search by beams: the mean of the log-probabilities of its tokens."""


def write_text(run: "Run", asked: TextOptions) -> None:
    """Continues the prompts that were asked for.

    Raises:
        ValueError: options that do not go together, an empty prompt, or a file that cannot be read.
    """
    words = words_of(run)
    _check(asked)
    constraint = _constraint(asked, words)
    begins = _begins(asked)
    ids = [_ids(begin, asked, words) for begin in begins]
    if asked.beams is not None:
        texts = _searched(run, words, asked, asked.beams, begins, ids)
    elif len(begins) * asked.rows == 1:
        texts = [_one(run, words, asked, begins[0], ids[0], constraint)]
    else:
        texts = _several(run, words, asked, begins, ids, constraint)
    if asked.json:
        told = [{key: value for key, value in text._asdict().items() if value is not None} for text in texts]
        as_json(told[0] if len(told) == 1 else {"texts": told})


def sampler_of(sampling: Sampling, temperature: float = 0.8) -> "Sampler":
    """How tokens are chosen by these options, at this temperature where none was asked for."""
    from hippodrome.generate import Sampler

    given = {name: value for name, value in sampling._asdict().items() if value is not None}
    sampler = Sampler(**{"temperature": temperature, **given})
    sampler.check()
    return sampler


def _check(asked: TextOptions) -> None:
    """Raises ValueError where options do not go together, or one cannot be meant."""
    from hippodrome.generate.decoding import StopText

    several = asked.prompts is not None or len(asked.prompt) > 1 or asked.rows > 1
    of_state = "--state" if asked.state is not None else "--save-state"
    rules = (
        (asked.prompt and asked.prompts is not None, "--prompt and --prompts both name prompts; give one"),
        (asked.regex is not None and asked.json_schema is not None,
         "--regex and --json-schema both say what the text is; give one"),
        (asked.logprobs is not None and not asked.json, "--logprobs are told with --json; add it"),
        (asked.system is not None and not asked.chat, "--system is the message before one of --chat; add it"),
        (several and (asked.state is not None or asked.save_state is not None),
         f"{of_state} is of one text; give one prompt and leave --n out"),
        (asked.chat and asked.state is not None,
         "--state goes on with a text; a conversation goes on in hippodrome chat, with /load"),
    )  # fmt: skip
    beside = {"stop": asked.stops, "regex": asked.regex, "json_schema": asked.json_schema, "seed": asked.seed,
              "logprobs": asked.logprobs, "state": asked.state, "save_state": asked.save_state,
              **asked.sampling._asdict()}  # fmt: skip
    given = [name for name, value in beside.items() if value not in (None, [])]
    if asked.beams is not None and given:
        raise ValueError(
            f"--beams looks for the likeliest text by the model alone, so --{given[0].replace('_', '-')} has "
            "no say in it; leave one of them out"
        )
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)
    # Before anything is read, which may take long, or shown.
    sampler_of(asked.sampling)
    StopText(asked.stops)
    place = asked.save_state
    if place is not None and (place.is_dir() or not place.parent.is_dir()):
        what = "is a folder" if place.is_dir() else "is in no folder that is there"
        raise ValueError(f"--save-state writes a file, and {place} {what}. Name another")


def _begins(asked: TextOptions) -> list[str]:
    """The prompts; standard input where none is named, and nothing where a state goes on without one."""
    if asked.prompts is not None:
        lines = text_of(asked.prompts).splitlines()
        found = [line for line in lines if line.strip()]
        if not found:
            raise ValueError(f"{asked.prompts} has no prompt: it holds one a line, and no line has any text")
        return found
    if asked.prompt or asked.state is not None:
        return asked.prompt or [""]
    try:
        return [standard_input().read()]
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is no text in UTF-8: {error.reason}") from None


def _ids(begin: str, asked: TextOptions, words: "Words") -> list[int]:
    """The token ids of a prompt, laid out as a message where it is one."""
    from hippodrome.text.folder import encode

    if not asked.chat:
        # In the middle of a text nothing is put in front.
        return encode(words, begin, special=asked.state is None)
    if words.template is None:
        raise ValueError(
            "--chat needs a model with a chat template, and this one has none. Leave it out, or try "
            "hippodrome chat, which then names the speakers."
        )
    system = [] if asked.system is None else [{"role": "system", "content": asked.system}]
    text = words.template.render([*system, {"role": "user", "content": begin}], add_generation_prompt=True)
    return encode(words, text, special=False)


def _constraint(asked: TextOptions, words: "Words") -> "Grammar | None":
    if asked.regex is not None:
        from hippodrome.generate.constraint import regex

        return regex(asked.regex, words.tokenizer, words.ends)
    if asked.json_schema is None:
        return None
    from hippodrome.generate.constraint import json_schema

    try:
        schema = json.loads(text_of(asked.json_schema))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{asked.json_schema} is no JSON that can be read: {error}") from None
    return json_schema(schema, words.tokenizer, words.ends)


def _one(
    run: "Run", words: "Words", asked: TextOptions, begin: str, ids: list[int], constraint: "Grammar | None"
) -> Text:
    """One text, shown as it comes."""
    from hippodrome.generate import Chooser
    from hippodrome.generate.continuations import vocabulary
    from hippodrome.generate.session import Session
    from hippodrome.text.folder import known_ids

    session = Session(run.model, words.tokenizer)
    written: list[int] = []
    seed, drawn, before = asked.seed, 0, ""
    began = time.perf_counter()
    if asked.state is not None:
        found = session.load(asked.state, spec=run.spec)
        known = list(session.ids)
        before = words.tokenizer.decode(known)
        if not ids:
            written = known[len(known) - found.written :]
            seed, drawn = (found.seed, found.drawn) if seed is None else (seed, 0)
    session.read(ids)
    read_in = time.perf_counter() - began
    chooser = Chooser(
        sampler_of(asked.sampling),
        vocab_size=min(known_ids(words.tokenizer), vocabulary(run.model)),
        seed=seed,
        prompt=session.ids[: len(session.ids) - len(written)],
        constraint=constraint,
        logprobs=asked.logprobs,
        output=written,
        drawn=drawn,
    )
    if not asked.json and not asked.chat:
        show(before + begin)
    pieces, marks = [], []
    began = time.perf_counter()
    writing = session.write(
        chooser, max_new_tokens=asked.tokens, ends=words.ends, stops=asked.stops, apart=asked.chat
    )
    for piece in writing:
        pieces.append(piece)
        if piece and not asked.json:
            show(piece)
        marks.append(time.perf_counter())
    if not asked.json:
        typer.echo()
    if asked.save_state is not None:
        session.save(asked.save_state, spec=run.spec, chooser=chooser)
    made = len(session.chosen)
    if asked.stats:
        typer.echo(f"read {_rate(len(ids), read_in)}; wrote {_pace(made, [began, *marks])}", err=True)
    told = None if asked.logprobs is None else _told(session.chosen, words)
    return Text(before + begin, "".join(pieces), session.reason, made, told)


def _several(
    run: "Run",
    words: "Words",
    asked: TextOptions,
    begins: list[str],
    ids: list[list[int]],
    constraint: "Grammar | None",
) -> list[Text]:
    """Texts that are written together; each is shown when it is whole, in the order of the prompts."""
    from hippodrome.generate import Piece, pieces

    prompts = [row for row in ids for _ in range(asked.rows)]
    names = [begin for begin in begins for _ in range(asked.rows)]
    constraints = None if constraint is None else [constraint.copy() for _ in prompts]
    began = time.perf_counter()
    parts: list[list[Piece]] = [[] for _ in prompts]
    shown = 0
    for piece in pieces(
        run.model,
        words.tokenizer,
        prompts,
        sampler=sampler_of(asked.sampling),
        max_new_tokens=asked.tokens,
        seed=asked.seed,
        ends=words.ends,
        stops=asked.stops,
        constraints=constraints,
        logprobs=asked.logprobs,
        apart=asked.chat,
    ):
        parts[piece.row].append(piece)
        while not asked.json and shown < len(parts) and parts[shown] and parts[shown][-1].finish_reason:
            whole = "".join(part.text for part in parts[shown])
            _headed(asked, shown, names[shown], whole)
            shown += 1
    took = time.perf_counter() - began
    texts = []
    for begin, row in zip(names, parts, strict=True):
        made = sum(len(piece.ids) for piece in row)
        chosen = [token for piece in row for token in piece.logprobs]
        told = None if asked.logprobs is None else _told(chosen, words)
        reason = row[-1].finish_reason if row else None
        texts.append(Text(begin, "".join(piece.text for piece in row), reason, made, told))
    if asked.stats:
        total = sum(text.tokens for text in texts)
        what = f"read {sum(map(len, prompts))} tokens and wrote {_rate(total, took)}"
        typer.echo(f"{what} of {len(texts)} texts together", err=True)
    return texts


def _searched(
    run: "Run", words: "Words", asked: TextOptions, width: int, begins: list[str], ids: list[list[int]]
) -> list[Text]:
    """The likeliest texts that a search by beams finds for each prompt, shown when all are found."""
    import torch

    from hippodrome.generate.beam import beams
    from hippodrome.generate.decoding import TextStream
    from hippodrome.text.folder import known_ids

    if not all(ids):
        raise ValueError("the prompt is empty: give at least one character to go on from")
    if asked.rows > width:
        raise ValueError(f"--n asks for {asked.rows} texts, and --beams {width} finds no more than {width}")
    began = time.perf_counter()
    found = beams(
        run.model,
        [torch.tensor(row) for row in ids],
        width=width,
        max_new_tokens=asked.tokens,
        ends=words.ends,
        count=asked.rows,
        vocab_size=known_ids(words.tokenizer),
    )
    took = time.perf_counter() - began
    texts = []
    for begin, row, each in zip(begins, ids, found, strict=True):
        for beam in each:
            # Some tokenizers drop the space at the beginning of a text; in the middle it is part of it.
            stream = TextStream(words.tokenizer, () if asked.chat else row)
            shown = [stream.push(i) for i in beam.ids if i not in words.ends]
            text = "".join(shown) + stream.flush()
            texts.append(Text(begin, text, beam.finish_reason, len(beam.ids), score=beam.score))
    if not asked.json:
        for number, one in enumerate(texts):
            if len(texts) > 1:
                _headed(asked, number, one.prompt, one.text)
            else:
                show(("" if asked.chat else one.prompt) + one.text + "\n")
    if asked.stats:
        total = sum(text.tokens for text in texts)
        what = f"read {sum(map(len, ids))} tokens and found {_rate(total, took)}"
        typer.echo(f"{what} by {width} beams", err=True)
    return texts


def _headed(asked: TextOptions, number: int, begin: str, text: str) -> None:
    typer.echo(f"== {number + 1} ==")
    show(("" if asked.chat else begin) + text + "\n")


def _told(chosen: "Sequence[Chosen]", words: "Words") -> list[dict[str, Any]]:
    """Log-probabilities for a program."""

    def named(token: int, logprob: float) -> dict[str, Any]:
        text = words.tokenizer.decode([token], skip_special_tokens=False)
        return {"id": token, "token": text, "logprob": logprob}

    return [{**named(one.id, one.logprob), "top": [named(*pair) for pair in one.top]} for one in chosen]


def _pace(tokens: int, marks: list[float]) -> str:
    """How fast tokens were written, and without the first ones, while which kernels are loaded."""
    warm = min(8, len(marks) // 2)
    whole = _rate(tokens, marks[-1] - marks[0])
    if len(marks) < 16:
        return whole
    return (
        f"{whole}; {(len(marks) - 1 - warm) / (marks[-1] - marks[warm]):.1f} a second after the first {warm}"
    )


def _rate(tokens: int, seconds: float) -> str:
    each = f" ({tokens / seconds:.1f} a second)" if tokens and seconds > 0 else ""
    return f"{tokens} tokens in {seconds:.2f} s{each}"

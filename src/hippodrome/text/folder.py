"""The tokenizer files of a checkpoint's folder: words to ids, the ids that end a text, the chat template."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from hippodrome.text.template import Template

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
"""The files beside the weights that say how text is read and ended: they go along to another folder."""

_OTHER = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
"""Files of tokenizers that are not read here."""


class Words(NamedTuple):
    """How a checkpoint reads and writes text.

    ``bos`` begins a text and ``pad`` fills up, None where there is no such token; ``ends`` are the ids any of
    which ends a text, the likeliest first; ``template`` lays out conversations, None where the folder has
    none; ``add_bos`` says that ``encode`` puts ``bos`` in front because the tokenizer itself does not.
    """

    tokenizer: Tokenizer
    bos: int | None
    ends: tuple[int, ...]
    pad: int | None
    template: Template | None
    add_bos: bool


def read(folder: str | Path, vocab_size: int | None = None) -> Words | None:
    """The words of a folder; None where it holds no tokenizer at all.

    ``tokenizer.json`` is the tokenizer. ``tokenizer_config.json`` (or ``special_tokens_map.json``) names its
    special tokens. What ends a text is what ``generation_config.json`` says, else ``config.json``, and the
    tokenizer's ``eos_token``, which in a chat is the end of a turn. The chat template is in
    ``chat_template.jinja``, else ``chat_template.json``, else ``tokenizer_config.json``. A run folder, which
    may hold ``tokenizer.json`` alone, is read the same way.

    Args:
        folder: where the files are.
        vocab_size: rows of the model's embedding; a tokenizer with ids beyond them is another model's.

    Raises:
        ValueError: a tokenizer in another form than ``tokenizer.json``, a file that cannot be read or does
            not say what it should, or ids beyond the vocabulary.
    """
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file():
        other = [name for name in _OTHER if (folder / name).is_file()]
        if other:
            raise ValueError(
                f"{folder} has its tokenizer in {other[0]} alone, and a tokenizer is read from "
                "tokenizer.json. Make one where the transformers package is: "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
        return None
    tokenizer = _tokenizer(folder / "tokenizer.json")
    said = _json(folder / "tokenizer_config.json")
    special = _special(said, _json(folder / "special_tokens_map.json"))
    ids = {name: tokenizer.token_to_id(text) for name, text in special.items()}
    generation, config = _json(folder / "generation_config.json"), _json(folder / "config.json")
    ends = _ids(generation, "eos_token_id", folder) or _ids(config, "eos_token_id", folder)
    bos = next(iter(_ids(generation, "bos_token_id", folder) or _ids(config, "bos_token_id", folder)), None)
    pad = next(iter(_ids(generation, "pad_token_id", folder) or _ids(config, "pad_token_id", folder)), None)
    # An id is the tokenizer's where it has the token; the other files name it for tokenizers that do not say.
    bos = bos if ids.get("bos_token") is None else ids["bos_token"]
    pad = pad if ids.get("pad_token") is None else ids["pad_token"]
    eos = ids.get("eos_token")
    ends = tuple(dict.fromkeys([*ends, *([] if eos is None else [eos])]))
    if vocab_size is not None:
        _check(folder, tokenizer, [*ends, *(id for id in (bos, pad) if id is not None)], vocab_size)
    add_bos = said.get("add_bos_token") is True and bos is not None and tokenizer.post_processor is None
    return Words(tokenizer, bos, ends, pad, _template(folder, said, special), add_bos)


def known_ids(tokenizer: Tokenizer) -> int:
    """One more than the largest id of a tokenizer: rows that pad a vocabulary beyond it are no tokens."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def byte_words(tokenizer: Tokenizer) -> Words:
    """The words of a tokenizer alone: of a run trained on plain text, which has no special tokens."""
    return Words(tokenizer, None, (), None, None, False)


def encode(words: Words, text: str, *, special: bool = True) -> list[int]:
    """The ids of a text. Special tokens that are spelt out in it become their ids.

    Args:
        words: of ``read``.
        text: any text; of a chat what the template made of it, with ``special=False``, because a template
            writes the first token itself.
        special: whether to add what the tokenizer adds around a text, the beginning of it mostly.

    Raises:
        ValueError: a text with surrogates, which is none in UTF-8.
    """
    try:
        ids = words.tokenizer.encode(text, add_special_tokens=special).ids
    except TypeError:  # of the library, for letters that cannot be written in UTF-8
        raise ValueError(
            f"a text is Unicode that can be written in UTF-8; {text[:40]!r} holds half a letter, or comes "
            "from bytes in another encoding. Give it in UTF-8."
        ) from None
    if special and words.add_bos and words.bos is not None and ids[:1] != [words.bos]:
        return [words.bos, *ids]
    return ids


def decode(words: Words, ids: Iterable[int], *, special: bool = False) -> str:
    """The text of ids; special tokens are left out unless ``special``."""
    return words.tokenizer.decode(list(ids), skip_special_tokens=not special)


def carry(words: Words, source: str | Path | None, target: str | Path) -> None:
    """Puts the tokenizer files of a checkpoint's folder beside the weights in another folder.

    What ``words`` know and these files do not say is written there: what ends a text, in
    ``generation_config.json``, where only ``config.json`` said it, because the other folder has a
    configuration of its own; and a chat template that came from elsewhere. Each file is written under another
    name first.

    Args:
        words: of ``read``, with another template perhaps.
        source: the folder whose ``FILES`` are copied; None where there are none.
        target: the folder that has the weights; where ``source`` has no ``tokenizer.json``, it has one.

    Raises:
        OSError: the folder cannot be written.
    """
    target = Path(target)
    for name in FILES:
        if source is not None and (Path(source) / name).is_file():
            _write(target / name, (Path(source) / name).read_bytes())
    said = _json(target / "generation_config.json")
    if words.ends and not _ids(said, "eos_token_id", target):
        ours = {"bos_token_id": words.bos, "eos_token_id": list(words.ends), "pad_token_id": words.pad}
        said = {**ours, **{name: value for name, value in said.items() if value is not None}}
        _write(target / "generation_config.json", (json.dumps(said, indent=2) + "\n").encode())
    if words.template is not None:
        there = _template(target, _json(target / "tokenizer_config.json"), {})
        if there is None or there.source != words.template.source:
            _write(target / "chat_template.jinja", words.template.source.encode())


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(content)
    aside.replace(path)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself, whatever is wrong
        raise ValueError(
            f"{path} is no tokenizer that can be read: {' '.join(str(error).split())[:200]}. Take the file "
            "from where the checkpoint comes from."
        ) from None
    # Settings of whoever saved it: they would cut long texts and fill up short ones without a word.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    """What a JSON file says, nothing where it is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Take the file from where the checkpoint comes from."
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds settings by name; got a {type(found).__name__}. Take the original.")
    return found


def _special(said: dict[str, Any], mapped: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name; each is a text, or a mapping with the text as its content."""
    found = {}
    for name, value in {**mapped, **said}.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _ids(said: dict[str, Any], name: str, folder: Path) -> tuple[int, ...]:
    """The id or ids that a configuration gives; a null is none."""
    value = said.get(name)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in listed):
        raise ValueError(
            f"{folder}: {name} is a token id or a list of them; got {value!r}. Correct it in the "
            "configuration of the checkpoint."
        )
    # Some checkpoints write -1 where they have no such token.
    return tuple(one for one in listed if one >= 0)


def _check(folder: Path, tokenizer: Tokenizer, named: list[int], vocab_size: int) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    beyond = {text: id for text, id in vocabulary.items() if id >= vocab_size}
    if beyond:
        text, most = max(beyond.items(), key=lambda pair: pair[1])
        raise ValueError(
            f"the tokenizer in {folder} has ids up to {most} ({text!r}), and the model has {vocab_size} "
            "tokens: it is the tokenizer of another model. Put the one there that came with the weights."
        )
    for id in named:
        if id >= vocab_size:
            raise ValueError(
                f"{folder} names token {id} as one that begins, ends or fills a text, and the model has "
                f"{vocab_size} tokens. Correct its generation_config.json or config.json."
            )


def _template(folder: Path, said: dict[str, Any], special: dict[str, str]) -> Template | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return Template(path.read_text(encoding="utf-8"), special)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {error}. Take the original.") from None
    found = _json(folder / "chat_template.json").get("chat_template", said.get("chat_template"))
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default", next(iter(named.values()), None) if len(named) == 1 else None)
    return Template(found, special) if isinstance(found, str) else None

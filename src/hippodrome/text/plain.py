"""A chat template for tokenizers that came without one, or with another."""

import json

from hippodrome.text.folder import Words
from hippodrome.text.template import Template

SOURCE = """{% for message in messages %}
{{ message.role ~ ':\\n' ~ (message.content | trim) ~ END ~ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ 'assistant:\\n' }}
{%- endif %}
"""


def with_ends(words: Words) -> Words:
    """The words with a token that ends a text: their own, else the byte 0, which no text holds.

    Raises:
        ValueError: a tokenizer that names no such token and has none for that byte.
    """
    if words.ends:
        return words
    ids = words.tokenizer.encode("\0", add_special_tokens=False).ids
    if len(ids) != 1:
        raise ValueError(
            "the tokenizer names no token that ends a text. Name one as eos_token in tokenizer_config.json "
            "beside tokenizer.json."
        )
    return words._replace(ends=(ids[0],))


def with_source(words: Words, source: str) -> Words:
    """The words with this chat template, to which the special tokens are known by their names."""
    known = {} if words.template is None else words.template.special
    end = words.ends[-1] if words.ends else None
    named = {"bos_token": words.bos, "eos_token": end, "pad_token": words.pad}
    own = {name: _spelling(words, id) or "" for name, id in named.items() if id is not None}
    return words._replace(template=Template(source, {**own, **known}))


def with_template(words: Words) -> Words:
    """The words with a chat template: their own, else one line with the role, the content, and the end.

    Raises:
        ValueError: words without an end, or with one that no text spells.
    """
    if words.template is not None:
        return words
    words = with_ends(words)
    # The tokenizer's own name for the end comes last: that of a turn.
    end = words.ends[-1]
    text = _spelling(words, end)
    if text is None:
        raise ValueError(
            f"token {end} ends a text and no text is read as it, so no chat can be written with it. Give a "
            "chat template that ends turns in another way."
        )
    return words._replace(template=Template(SOURCE.replace("END", json.dumps(text)), {}))


def _spelling(words: Words, id: int) -> str | None:
    """The text that is read as this token alone. Of a byte that is not its name, which is a letter."""
    tokenizer = words.tokenizer
    for text in (tokenizer.id_to_token(id), tokenizer.decode([id], skip_special_tokens=False)):
        if text and tokenizer.encode(text, add_special_tokens=False).ids == [id]:
            return text
    return None

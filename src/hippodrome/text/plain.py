"""A chat template for tokenizers that came without one."""

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
    for text in (words.tokenizer.id_to_token(end), words.tokenizer.decode([end], skip_special_tokens=False)):
        if text and words.tokenizer.encode(text, add_special_tokens=False).ids == [end]:
            return words._replace(template=Template(SOURCE.replace("END", json.dumps(text)), {}))
    raise ValueError(
        f"token {end} ends a text and no text is read as it, so no chat can be written with it. Give a chat "
        "template that ends turns in another way."
    )

"""Chat templates against the transformers package, and templates that would do harm."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from hippodrome.text import _sandbox
from hippodrome.text._sandbox import LETTERS
from hippodrome.text.template import Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}
"""

FOLDED = """{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n' %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system, rest = '', messages %}
{%- endif %}
{%- for message in rest %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant.') }}
    {%- endif %}
    {%- set said = (system if loop.first else '') ~ message.content | trim %}
    {%- if message.role == 'user' %}
        {{- bos_token ~ '[INST] ' ~ said ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ said ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

CONTROLLED = """{%- set ns = namespace(seen=0, last='') %}
{%- for message in messages %}
    {%- if message.role == 'note' %}{% continue %}{% endif %}
    {%- set ns.seen = ns.seen + 1 %}
    {%- for word in message.content.split(' ') if word %}
        {%- if word == 'stop' %}{% break %}{% endif %}
        {{- word | capitalize }}{{ ' ' if not loop.last }}
    {%- endfor %}
    {{- ' (' ~ loop.index ~ '/' ~ loop.length ~ ')\n' }}
    {%- set ns.last = message.role %}
{%- else %}
    {{- raise_exception('no messages') }}
{%- endfor %}
{{- ns.seen }} {{ ns.last }} {{ undefined_name }}{{ dict(a=1).items() | list }}"""

TOOLS = """{%- macro call(one) -%}
<tool_call>{"name": "{{ one.name }}", "arguments": {{ one.arguments | tojson }}}</tool_call>
{%- endmacro %}
{{- bos_token }}
{%- if tools is defined and tools %}
    {{- '<tools>\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) }}
        {{- '\n' if not loop.last }}
    {%- endfor %}
    {{- '\n</tools>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- message.role }}: {{ message.content if message.content is string -}}
    {%- if message.content is mapping %}{{ message.content | tojson }}{% endif %}
    {%- for one in message.tool_calls or [] %}{{ call(one.function) }}{% endfor %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"""

TALK = [
    {"role": "system", "content": "Be brief & <kind>."},
    {"role": "user", "content": "  Grüße, what is 2 + 2?  "},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Sure?\nReally stop now"},
]
CALLED = [
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}}],
    },
    {"role": "tool", "content": {"sky": "<clear>", "degrees": 21.5}},
]
WEATHER = [{"type": "function", "function": {"name": "weather", "description": "Sky & <wind>"}}]


def oracle(source: str, messages: list[dict[str, Any]], prompt: bool, tools: list | None) -> str:
    """What transformers renders."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=source, **SPECIAL)
    return theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, tools=tools)


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize(
    ("source", "messages", "tools"),
    [
        (CHATML, TALK, None),
        (FOLDED, TALK, None),
        (FOLDED, TALK[1:], None),
        (ZEPHYR, TALK, None),
        (CONTROLLED, [*TALK, {"role": "note", "content": "aside"}], None),
        (TOOLS, CALLED, WEATHER),
        (TOOLS, TALK, None),
    ],
    ids=["chatml", "folded system", "folded", "zephyr", "loop controls", "tools", "no tools"],
)
def test_renders_as_transformers_does(
    source: str, messages: list[dict[str, Any]], tools: list | None, prompt: bool
) -> None:
    ours = Template(source, SPECIAL).render(messages, add_generation_prompt=prompt, tools=tools)
    assert ours == oracle(source, messages, prompt, tools)
    assert messages[-1]["role"] != "assistant"
    assert str(messages[0]["content"]).split()[0].lower() in ours.lower()


def test_time_is_told_in_the_form_asked_for() -> None:
    told = Template("{{ strftime_now('%Y') }}", {}).render([])
    assert told in {time.strftime("%Y"), str(int(time.strftime("%Y")) - 1)}


def test_a_template_refuses_messages_in_its_own_words() -> None:
    wrong = [TALK[1], TALK[1]]
    with pytest.raises(ValueError, match=r"refuses these messages: Roles must alternate user/assistant\."):
        Template(FOLDED, SPECIAL).render(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ ''|attr('__class__') }}{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}{{ lipsum.__globals__ }}",
        "{% set x = messages.append(1) %}",
        "{{ raise_exception.__globals__.os }}",
        "{{ (strftime_now).__code__.co_consts }}",
    ],
)
def test_a_template_reaches_nothing_of_python(source: str) -> None:
    with pytest.raises(ValueError, match="chat template"):
        Template(source, SPECIAL).render(TALK)
    assert len(TALK) == 4


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(100000000) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [[1]] * 9 recursive %}{{ loop([[x]] * 9) }}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 'x' * 999999999 }}",
        "{{ [1] * 999999999 }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{% set x = 'x' * 9999999 %}{{ x.replace('x', x) }}",
        "{% set x = 'x' * 9999999 %}{{ x | replace('x', x) }}",
        "{% set x = 'x' * 9999999 %}{{ ([x] * 99999) | join }}",
        "{% set x = 'x' * 9999999 %}{{ ([{'a': x}] * 99999) | join(attribute='a') }}",
        "{% set x = 'x' * 9999999 %}{{ ''.join([x] * 99999) }}",
        "{% set x = 'x' * 9999999 %}{{ x.join(['a'] * 99999) }}",
        "{{ 'a\\nb' | indent(999999999) }}",
        "{{ '\\t'.expandtabs(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'x' | center(999999999) }}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set x = 'x' * 9999999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
        "{% set n = namespace(x='xx') %}"
        "{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{% set n = namespace(x='xx') %}"
        "{% for i in range(60) %}{% set n.x = twice(n.x) %}{% endfor %}",
        "{% set x %}{% for i in range(4000) %}" + "x" * 99999 + "{% endfor %}{% endset %}",
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ x }}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ x | tojson }}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ x | string | length }}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ '' ~ x }}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ namespace(a=x) }}",
        "{% set x = ['x' * 9999999] * 9999999 %}{{ dict(a=x).values() }}",
        "{{ messages | tojson(indent=999999999) }}",
        "{{ messages | tojson(separators=('x' * 9999999, 'x' * 9999999), indent=9) * 99 }}",
        "{{ [1] | batch(999999999, 'x') | list }}",
        "{{ [1] | slice(999999999) | list }}",
        "{{ ([[0] * 9999999] * 9999999) | sum(start=[]) }}",
        "{% set x = 'x' * 9999999 %}{{ (['a'] * 99999) | map('replace', 'a', x) | list | length }}",
        "{% set x = 'x' * 9999999 %}{{ ([x] * 99999) | map('upper') | list | length }}",
        "{% set x = 'x' * 9999999 %}{% set n = namespace(x=[]) %}"
        "{% for i in range(4000) %}{% set n.x = n.x + [x[i:]] %}{% endfor %}",
        "{% set x = 'x' * 9999999 %}{% set n = namespace(x=[]) %}"
        "{% for i in range(4000) %}{% set n.x = n.x + [x.upper()] %}{% endfor %}",
    ],
)
def test_a_template_that_would_not_end_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many steps as a test has time for; what is counted is the same.
    monkeypatch.setattr(_sandbox, "STEPS", 2**12)
    began = time.process_time()
    with pytest.raises(ValueError, match="chat template"):
        Template(source, SPECIAL).render(TALK)
    assert time.process_time() - began < 5


def test_a_long_conversation_is_no_offence() -> None:
    """Half a million letters in 4000 messages, each of them in the text."""
    messages = [{"role": "user", "content": f"{i} " + "word " * 25} for i in range(4000)]
    text = Template(CHATML, {}).render(messages)
    assert 500_000 < len(text) < LETTERS
    assert text.count("<|im_end|>") == 4000


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for m in messages %}", "no Jinja that can be read: line 1"),
        ("{{ messages[0].content.nothing.more }}", "does not work on these messages"),
        ("{{ messages[0].content + 1 }}", "does not work on these messages"),
        ("{% include 'other' %}", "does not work on these messages"),
    ],
)
def test_a_broken_template_is_told_in_a_sentence(source: str, said: str) -> None:
    template = Template(source, {})
    with pytest.raises(ValueError, match=said):
        template.render(TALK)


def test_messages_are_plain() -> None:
    with pytest.raises(ValueError, match="plain JSON"):
        Template(CHATML, {}).render([{"role": "user", "content": Path()}])


FILTERED = """{%- for m in messages %}
{{- m.content | replace('e', 'EE') | replace('E', '3', 1) }}|{{ m.content.replace('a', '') }}|
{{- [m.role, 'x', 7] | join('-') }}|{{ messages | join(', ', attribute='role') }}|{{ 'ab'.join(['1', '2']) }}|
{{- m.content | indent }}|{{ m.content | indent(2, first=true) }}|{{ '{:>4}|{}'.format(m.role, 3) }}
{{- m.content.split(' ')[0] ~ 1 ~ none }}
{%- endfor %}"""


def test_what_is_bounded_works_as_it_did() -> None:
    assert Template(FILTERED, SPECIAL).render(TALK) == oracle(FILTERED, TALK, True, None)


def test_a_thought_that_is_opened_only_where_an_answer_is_asked_for_is_no_part_of_it() -> None:
    source = CHATML.replace("assistant\n' }}", "assistant\n<think>' }}")
    text, places = Template(source, {}).said([*TALK[:3]])
    assert [text[a:b] for a, b in places] == ["4<|im_end|>\n"]


@pytest.mark.parametrize("source", [CHATML, ZEPHYR])
def test_what_the_assistant_says_is_found_by_what_it_adds(source: str) -> None:
    talk = [*TALK, {"role": "assistant", "content": "Yes."}]
    text, places = Template(source, SPECIAL).said(talk)
    assert text == Template(source, SPECIAL).render(talk, add_generation_prompt=False)
    ends = "<|im_end|>\n" if source == CHATML else "</s>\n"
    # Where the prompt leaves out the line break before an answer, that is part of the answer.
    assert [text[a:b].removeprefix("\n") for a, b in places] == [f"4{ends}", f"Yes.{ends}"]


def test_what_the_assistant_says_is_found_by_its_tag() -> None:
    tagged = (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    )
    talk = [*TALK, {"role": "assistant", "content": "Yes."}]
    text, places = Template(tagged, SPECIAL).said(talk)
    assert text == oracle(tagged, talk, False, None)
    assert [text[a:b] for a, b in places] == ["4</s>", "Yes.</s>"]
    with pytest.raises(ValueError, match=r"U\+F0000"):
        Template(tagged, SPECIAL).said([{"role": "user", "content": "\U000f0000"}])


def test_answers_that_have_no_place_of_their_own_are_refused() -> None:
    counts = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="no place of its own"):
        Template(counts, {}).said([*TALK, {"role": "assistant", "content": json.dumps(1)}])

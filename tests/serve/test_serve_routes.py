"""The routes, spoken to by the ``openai`` client: what it gets is what the model writes alone."""

import asyncio
import json
import re
import threading
import time

import openai
import pytest
import torch
from tests.generate._letters import alone, spelt

from hippodrome.generate import tape
from hippodrome.generate.request import Request
from hippodrome.generate.sampling import Sampler
from hippodrome.serve.app import warm_up

GREEDY = Sampler(temperature=0.0)


def written(tiny, prompt, tokens, sampler=GREEDY, seed=None):
    """The tokens of a solo run."""
    ids = tuple(tiny.service.served.words.tokenizer.encode(prompt).ids)
    return alone(tiny.model, Request(ids, tokens, sampler, seed=seed))


def ids_of(tiny, text):
    return tiny.service.served.words.tokenizer.encode(text).ids


def test_what_the_engine_records_is_compiled_before_it_listens(tiny_run, monkeypatch):
    recorded, plain = [], tape.Replay

    def told(call, ids, state, model):
        recorded.append((len(ids), plain(call, ids, state, model)))
        return recorded[-1][1]

    monkeypatch.setattr(tape, "Replay", told)
    warm_up(tiny_run.model)
    assert [rows for rows, _ in recorded] == [1, 8]


def test_models_and_health(tiny):
    assert [model.id for model in tiny.client.models.list()] == ["tiny"]
    assert tiny.client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="'big' is not served here"):
        tiny.client.models.retrieve("big")
    assert tiny.http.get("/health").json() == {"status": "ok"}


def test_a_completion_is_the_solo_run(tiny):
    found = tiny.client.completions.create(model="tiny", prompt="To be", max_tokens=9, temperature=0)
    assert found.choices[0].text == spelt(written(tiny, "To be", 9))
    assert found.choices[0].finish_reason == "length"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (5, 9, 14)
    assert len(written(tiny, "To be", 16)) == 16
    plain = tiny.client.completions.create(model="tiny", prompt="To be", temperature=0)
    assert plain.usage.completion_tokens == 16, "what the protocol takes where nothing is said"


def test_prompts_of_every_form_and_n(tiny):
    ids = [ids_of(tiny, "abc"), ids_of(tiny, "xy")]
    solo = [spelt(written(tiny, "abc", 4)), spelt(written(tiny, "xy", 4))]
    for prompt, expected in ((["abc", "xy"], solo), (ids, solo), (ids[0], solo[:1])):
        found = tiny.client.completions.create(model="tiny", prompt=prompt, max_tokens=4, temperature=0)
        assert [choice.text for choice in found.choices] == expected
    asked = {
        "model": "tiny",
        "prompt": ["abc", "xy"],
        "max_tokens": 4,
        "n": 2,
        "seed": 11,
        "temperature": 0.9,
    }
    found = tiny.client.completions.create(**asked)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    for index, (prompt, seed) in enumerate([("abc", 11), ("abc", 12), ("xy", 11), ("xy", 12)]):
        expected = spelt(written(tiny, prompt, 4, Sampler(0.9), seed))
        assert found.choices[index].text == expected
    assert found.usage.completion_tokens == 16


def test_echo_and_log_probabilities(tiny):
    found = tiny.client.completions.create(
        model="tiny", prompt="hello", max_tokens=3, temperature=0, logprobs=2, echo=True
    )
    made = written(tiny, "hello", 3)
    assert found.choices[0].text == "hello" + spelt(made)
    told = found.choices[0].logprobs
    ids = [*ids_of(tiny, "hello"), *made]
    logs = tiny.model(torch.tensor([ids]))[0][0].detach().log_softmax(-1)
    assert told.tokens[:5] == list("hello")
    assert told.text_offset[:5] == [0, 1, 2, 3, 4]
    assert told.token_logprobs[0] is None
    expected = [logs[i, ids[i + 1]].item() for i in range(7)]
    assert told.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert all(len(top) == 2 for top in told.top_logprobs[1:])
    only = tiny.client.completions.create(model="tiny", prompt="hello", max_tokens=0, logprobs=0, echo=True)
    assert only.choices[0].text == "hello"
    assert only.choices[0].logprobs.token_logprobs[1:] == pytest.approx(expected[:4], abs=1e-4)


def test_a_chat_goes_through_the_template(tiny):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}]},
    ]
    prompt = "<system>Be brief.<user>Who are you?<assistant>"
    found = tiny.client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    made = written(tiny, prompt, 6)
    assert found.choices[0].message.content == spelt(made)
    assert found.choices[0].message.role == "assistant"
    told = found.choices[0].logprobs.content
    said = b"".join(bytes(token.bytes) for token in told)
    assert said.decode(errors="replace") == spelt(made)
    assert all(len(token.top_logprobs) == 3 for token in told)
    assert told[0].top_logprobs[0].logprob == told[0].logprob, "greedy takes the likeliest"
    again = tiny.client.chat.completions.create(model="tiny", messages=messages, max_tokens=2, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens >= len(prompt)


def test_streams(tiny):
    asked = {"model": "tiny", "max_tokens": 12, "temperature": 0, "stream": True}
    messages = [{"role": "user", "content": "hi"}]
    chunks = list(
        tiny.client.chat.completions.create(
            messages=messages, n=2, stream_options={"include_usage": True}, **asked
        )
    )
    solo = spelt(written(tiny, "<user>hi<assistant>", 12))
    for index in range(2):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in mine) == solo
        assert [choice.finish_reason for choice in mine] == [None] * (len(mine) - 1) + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    parts = list(tiny.client.completions.create(prompt=["ab", "cd"], echo=True, logprobs=0, **asked))
    for index, prompt in enumerate(["ab", "cd"]):
        mine = [part.choices[0] for part in parts if part.choices[0].index == index]
        assert "".join(choice.text for choice in mine) == prompt + spelt(written(tiny, prompt, 12))
        told = sum(len(choice.logprobs.tokens) for choice in mine if choice.logprobs)
        assert told == 2 + 12


def test_stop_strings_and_ends(tiny):
    text = spelt(written(tiny, "stop", 20))
    for stop in (text[6:9], ["never so", text[6:9]]):
        found = tiny.client.completions.create(
            model="tiny", prompt="stop", max_tokens=20, temperature=0, stop=stop
        )
        assert found.choices[0].text == text[: text.index(text[6:9])]
        assert found.choices[0].finish_reason == "stop"
    # A bias makes the end certain; an extension goes on after it.
    bias = {"256": 100}
    ended = tiny.client.completions.create(model="tiny", prompt="a", max_tokens=4, logit_bias=bias)
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
    assert ended.usage.completion_tokens == 1
    on = tiny.client.completions.create(
        model="tiny", prompt="a", max_tokens=4, logit_bias=bias, extra_body={"ignore_eos": True}
    )
    assert on.usage.completion_tokens == 4


def test_rules_of_choosing(tiny):
    sampler = Sampler(0.7, 30, 0.9, 0.01, 1.2, 0.5, 0.25)
    found = tiny.client.completions.create(
        model="tiny", prompt="rules", max_tokens=12, temperature=0.7, top_p=0.9, presence_penalty=0.5,
        frequency_penalty=0.25, seed=4, extra_body={"top_k": 30, "min_p": 0.01, "repetition_penalty": 1.2},
    )  # fmt: skip
    assert found.choices[0].text == spelt(written(tiny, "rules", 12, sampler, 4))


def test_constrained_answers(tiny):
    messages = [{"role": "user", "content": "json"}]
    schema = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["on", "kind"],
        "additionalProperties": False,
    }
    found = tiny.client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=200, temperature=0, n=2,
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
    )  # fmt: skip
    for choice in found.choices:
        value = json.loads(choice.message.content)
        assert isinstance(value["on"], bool)
        assert value["kind"] in ("a", "b")
        assert choice.finish_reason == "stop"
    matched = tiny.client.completions.create(
        model="tiny",
        prompt="x",
        max_tokens=9,
        extra_body={"response_format": {"type": "regex", "pattern": "[0-9]{4}"}},
    )
    assert re.fullmatch("[0-9]{4}", matched.choices[0].text)
    some = tiny.client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=3, response_format={"type": "json_object"}
    )
    assert some.choices[0].message.content.startswith("{")


def test_many_at_once_are_not_mixed_up(tiny):
    prompts = [f"prompt number {i} " + "x" * i for i in range(16)]
    expected = [spelt(written(tiny, prompt, 10)) for prompt in prompts]

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{tiny.address}/v1", api_key="none") as client:
            asked = (
                client.completions.create(model="tiny", prompt=prompt, max_tokens=10, temperature=0)
                for prompt in prompts
            )
            return await asyncio.gather(*asked)

    assert [found.choices[0].text for found in asyncio.run(all_of_them())] == expected


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(tiny, stream):
    body = {"prompt": "long", "max_tokens": 5000, "temperature": 0, "stream": stream}
    began = threading.Event()

    def ask():
        with tiny.http.stream("POST", "/v1/completions", json=body, timeout=0.3) as answer:
            for _ in answer.iter_bytes():
                began.set()
                return

    if stream:
        ask()
        assert began.is_set()
    else:
        with pytest.raises(Exception, match="timed out"):
            ask()
    until = time.monotonic() + 5
    while tiny.service.engine.load().writing:
        assert time.monotonic() < until, "the answer is still being written"
        time.sleep(0.01)
    assert tiny.service.engine.load().written < 5000 * 2

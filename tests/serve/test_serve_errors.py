"""What a server refuses, and how: every error in the protocol's form, and none that stops it."""

import asyncio
import json
import socket
import threading
import time

import httpx
import openai
import pytest

from hippodrome.serve.app import create_app


def refused(tiny, path, body, status, param=None, code=None, match=""):
    """The one error of a request, in the protocol's form."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = tiny.http.post(path, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert match in error["message"]
    assert (param, code) in ((None, None), (error["param"], error["code"]))
    return answer


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{", 400, None, "invalid_json"),
        (b"[]", 400, None, "invalid_value"),
        (b"", 400, None, "invalid_value"),
        (b"\xff\xfe", 400, None, None),
        (b"[" * 50_000, 400, None, None),
        ({}, 400, "prompt", "invalid_value"),
        ({"prompt": 3}, 400, "prompt", "invalid_value"),
        ({"prompt": ""}, 400, "prompt", "invalid_value"),
        ({"prompt": []}, 400, "prompt", "invalid_value"),
        ({"prompt": "\ud800"}, 400, None, "invalid_value"),
        ({"prompt": [[1, 999]]}, 400, "prompt", "invalid_value"),
        ({"prompt": [-1] * 30_000}, 400, "prompt", "invalid_value"),
        ({"prompt": "a", "surprise\ud800": 1}, 400, None, "invalid_value"),
        ({"prompt": "a", **{f"f{i}": i for i in range(5000)}}, 400, None, "invalid_value"),
        ({"prompt": "a", "model": "other"}, 404, "model", "model_not_found"),
        ({"prompt": "a", "suffix": "b"}, 400, None, "invalid_value"),
        ({"prompt": "a", "best_of": 4}, 400, None, "invalid_value"),
        ({"prompt": "a", "n": 9}, 400, "n", "invalid_value"),
        ({"prompt": ["a"] * 5, "n": 4}, 400, "n", "invalid_value"),
        ({"prompt": "a", "temperature": "1"}, 400, "temperature", "invalid_value"),
        (b'{"prompt": "a", "temperature": NaN}', 400, "temperature", "invalid_value"),
        ({"prompt": "a", "top_p": 0}, 400, "top_p", "invalid_value"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias", "invalid_value"),
        ({"prompt": "a", "logit_bias": {"999": 1}}, 400, "logit_bias", "invalid_value"),
        ({"prompt": "a", "logit_bias": {str(i): 1 for i in range(2000)}}, 400, "logit_bias", "invalid_value"),
        ({"prompt": "a", "stop": ["x"] * 17}, 400, "stop", "invalid_value"),
        ({"prompt": "a", "stop": ""}, 400, "stop", "invalid_value"),
        ({"prompt": "a", "max_tokens": 6000}, 400, "prompt", "context_length_exceeded"),
        ({"prompt": "a" * 6000}, 400, "prompt", "context_length_exceeded"),
        ({"prompt": "a" * 300_000}, 413, None, "request_too_large"),
        (
            {"prompt": "a", "response_format": {"type": "regex", "pattern": "("}},
            400,
            "response_format",
            "invalid_value",
        ),
    ],
    ids=range(31),
)
def test_what_cannot_be_answered(tiny, body, status, param, code):
    refused(tiny, "/v1/completions", body, status, param, code)


def test_conversations_that_cannot_be_answered(tiny):
    user = [{"role": "user", "content": "hi"}]
    impossible = {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}
    for body, param in (
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages"),
        ({"messages": user, "tools": [{"type": "function"}]}, None),
        ({"messages": user, "top_logprobs": 2}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": user, "response_format": impossible}, "response_format"),
    ):
        refused(tiny, "/v1/chat/completions", body, 400, param, "invalid_value")
    with pytest.raises(openai.BadRequestError, match="prompt and answer together"):
        tiny.client.chat.completions.create(model="tiny", messages=user, max_tokens=10_000)
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/v1/completions", 405)):
        answer = tiny.http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_model_without_a_template_knows_no_conversations(tiny_run):
    plain = tiny_run._replace(words=tiny_run.words._replace(template=None))
    app = create_app(plain)

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/v1/chat/completions", json={"messages": [{"role": "user"}]})

    answer = asyncio.run(ask())
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "no_chat_template"
    app.state.service.engine.close()
    with pytest.raises(ValueError, match="no language model of text"):
        create_app(tiny_run._replace(words=None, tokenizer=None))


def test_the_key(serve):
    running = serve(api_key="a-long-secret")
    assert running.client.models.list().data[0].id == "tiny"
    assert running.http.get("/health").status_code == 200
    for shown in (None, "Bearer wrong-secret", "Basic a-long-secret", "Bearer a-long-secre\u00e9"):
        headers = {} if shown is None else {"Authorization": shown.encode()}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            answer = running.http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError, match="its key"):
        openai.OpenAI(base_url=f"{running.address}/v1", api_key="no", max_retries=0).models.list()


def test_a_full_queue_and_a_deadline(serve):
    running = serve(max_batch=1, queue=1, deadline=1.5)
    endless = {"prompt": "a", "max_tokens": 30_000, "temperature": 0}
    found = []

    def ask(stream):
        with running.http.stream("POST", "/v1/completions", json={**endless, "stream": stream}) as answer:
            found.append((answer.status_code, answer.read().decode()))

    threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
    load, until = running.service.engine.load, time.monotonic() + 5
    for number, thread in enumerate(threads, 1):
        thread.start()
        while load().writing + load().waiting < number:
            assert time.monotonic() < until
    answer = running.http.post("/v1/completions", json={"prompt": "b"})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    for thread in threads:
        thread.join()
    (_, streamed), (status, refusal) = sorted(found)
    assert status == 504
    assert json.loads(refusal)["error"]["code"] == "deadline_exceeded"
    last, done = [line for line in streamed.splitlines() if line][-2:]
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    # The client retries what it is told to retry, and then there is room.
    patient = running.client.with_options(max_retries=3)
    assert patient.completions.create(model="tiny", prompt="b", max_tokens=1).choices[0].finish_reason


def test_bodies_that_come_slowly_or_never(serve):
    running = serve(body_seconds=0.2, body_bytes=2000)
    host, port = running.address.removeprefix("http://").split(":")
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for rest, status in (
        (b"Content-Length: 100\r\n\r\n{", b"408"),
        (b"Content-Length: 99999999999\r\n\r\n{", b"413"),
        (b"Content-Length: 99999999999999999999999999\r\n\r\n{", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"800\r\n" + b"x" * 2048 + b"\r\n0\r\n\r\n", b"413"),
        (b"Content-Length: many\r\n\r\n{}", b"400"),
    ):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(head + rest)
            assert connection.recv(4096).split(b" ")[1] == status
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
    assert running.http.get("/health").status_code == 200


def test_metrics_count(serve):
    running = serve()
    for _ in range(2):
        running.client.completions.create(model="tiny", prompt="abcd", max_tokens=3, temperature=0)
    running.http.post("/v1/completions", content=b"{")
    assert running.metric("hippodrome_prompt_tokens_total") == 4
    assert running.metric("hippodrome_cached_tokens_total") == 4
    assert running.metric("hippodrome_completion_tokens_total") == 6
    assert running.metric("hippodrome_requests_total") >= 3
    assert running.metric("hippodrome_request_seconds_count") == 2
    assert running.metric("hippodrome_first_token_seconds_count") == 2
    assert running.metric("hippodrome_writing") == 0
    assert running.metric("hippodrome_cache_bytes") > 0


def test_the_end_finishes_what_is_open_and_refuses_the_rest(serve):
    running = serve(cache_bytes=0)
    found = []

    def ask():
        found.append(
            running.client.completions.create(model="tiny", prompt="a", max_tokens=150, temperature=0)
        )

    asking = threading.Thread(target=ask)
    asking.start()
    while not running.service.engine.load().writing:
        time.sleep(0.001)
    running.process.stop()
    with pytest.raises(openai.APIError):
        running.client.completions.create(model="tiny", prompt="a", max_tokens=1)
    asking.join()
    assert found[0].usage.completion_tokens == 150
    running.thread.join(10)
    assert not running.thread.is_alive()

"""`hippodrome serve` as a process: it says where it is, answers, and ends when it is told to."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="serving needs the server's packages")
check_address = pytest.importorskip("hippodrome.serve.process").check_address


def test_a_process_serves_until_it_is_told_to_end(language_run, tmp_path):
    key = tmp_path / "key"
    key.write_text("a-long-secret\n", encoding="utf-8")
    words = ["serve", language_run, "--port", "0", "--api-key-file", key, "--name", "fox", "--threads", "1"]
    command = [sys.executable, "-m", "hippodrome", *map(str, words), "--context", "100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        found = re.fullmatch(r"Serving fox at (http://127\.0\.0\.1:\d+)/v1 \(Ctrl-C stops it\)\n", line)
        assert found, line + process.stderr.read()

        def ask(tokens, **more):
            body = {"model": "fox", "prompt": "The quick", "max_tokens": tokens, "temperature": 0, **more}
            request = urllib.request.Request(f"{found[1]}/v1/completions", json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            request.add_header("Authorization", "Bearer a-long-secret")
            return urllib.request.urlopen(request, timeout=30)

        assert json.load(ask(5))["usage"]["completion_tokens"] == 5
        answers = []
        with ask(400, stream=True) as stream:
            answers.append(stream.readline())
            process.send_signal(signal.SIGTERM)
            reading = threading.Thread(target=lambda: answers.extend(stream))
            reading.start()
            reading.join(20)
        assert answers[-2] == b"data: [DONE]\n", "what was open came to its end"
        assert b'"finish_reason":"length"' in answers[-4]
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_an_address_that_is_taken_or_is_none(language_run, cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, expected in (
            (["--port", port], f"nothing can listen at 127.0.0.1, port {port}: address already in use"),
            (["--host", "127.0.0.300"], "lets others in"),
        ):
            answer = cli("serve", language_run, *words)
            assert answer.code == 2
            assert expected in answer.err
            assert len(answer.err.splitlines()) == 1
    for host in ("198.51.100.7", "no host at all"):
        with pytest.raises(ValueError, match=f"nothing can listen at {host}, port 0"):
            check_address(host, 0)
    check_address("127.0.0.1", 0)
    check_address("localhost", 0)


def test_what_is_refused_before_it_listens(language_run, forecast_run, cli, tmp_path):
    short = tmp_path / "key"
    short.write_text("abc", encoding="utf-8")
    for words, expected in (
        (["serve", language_run, "--host", "0.0.0.0"], "lets others in"),
        (["serve", language_run, "--host", "example.org"], "lets others in"),
        (["serve", language_run, "--api-key-file", short], "8 or more"),
        (["serve", language_run, "--api-key-file", tmp_path / "none"], "no such file"),
        (["serve", language_run, "--deadline", "0"], "deadline is above 0"),
        (["serve", language_run, "--grace", "inf"], "grace is 86400 seconds or less"),
        (["serve", forecast_run], "which writes nothing"),
        (["serve", tmp_path / "nothing"], "no such folder"),
        (["serve", language_run, "--chat-template", tmp_path / "none"], "no such file"),
    ):
        answer = cli(*words)
        assert answer.code == 2, words
        assert expected in answer.err
        assert len(answer.err.splitlines()) == 1

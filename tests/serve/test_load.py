"""`hippodrome load`: many clients, rough ones too, for a real server; and what it says of wrong answers."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from hippodrome.cli import app
from hippodrome.serve import load

pytest.importorskip("fastapi", reason="serving needs the server's packages")


def test_a_load_is_measured_and_every_answer_is_that_of_its_prompt(tiny):
    words = [tiny.address, "--clients", "1,6", "--seconds", "0.7", "--tokens", "12", "--prompts", "5"]
    answer = CliRunner().invoke(app, ["load", *words, "--words", "4", "--rough", "--json"])
    assert answer.exit_code == 0, answer.output
    few, many = json.loads(answer.stdout)
    assert (few["clients"], many["clients"]) == (1, 6)
    assert few["wrong"] == many["wrong"] == []
    assert many["answers"] >= 6
    assert many["happened"]["answer equal"] >= many["answers"]
    assert 0 < many["first_text"]["p50"] <= many["first_text"]["p99"]
    assert many["whole_answer"]["p50"] <= many["whole_answer"]["p99"] < 5
    assert many["tokens_per_second"] > 0
    shown = CliRunner().invoke(app, ["load", *words[:2], "1", "--seconds", "0.2", "--prompts", "1"])
    assert shown.exit_code == 0
    assert "answer equal" in shown.stdout


def test_a_server_that_answers_wrongly_is_told(tiny):
    target = load.Target(tiny.address)

    async def wrong():
        known = await load.solos(target, ["abc"], 8)
        spoiled = [known[0]._replace(text=f"{known[0].text[:-1]}!", margins=[1.0] * 8)]
        return await load.Load(target, spoiled, 8).run(2, 0.2)

    tally = asyncio.run(wrong())
    assert tally.wrong
    assert tally.happened["answer different"] == tally.answers


def test_ties_are_told_from_differences():
    solo = load.Solo("p", "abcdef", [0, 2, 4], [1.0, 1e-6, 1.0])
    assert load.judge(solo, "abcdef") == "equal"
    assert load.judge(solo, "abXdef") == "tie"
    assert load.judge(solo, "abcX") == "tie"
    assert load.judge(solo, "Xbcdef") == "different"
    assert load.judge(solo, "abcd") == "different"
    assert load.judge(solo, "abcdX") == "different"


def test_what_is_no_server_is_told_in_a_sentence():
    for address, words in (
        ("https://x", "is http://HOST:PORT"),
        ("http://127.0.0.1:9", "no server answers"),
    ):
        answer = CliRunner().invoke(app, ["load", address])
        assert answer.exit_code == 2
        assert words in answer.stderr
    answer = CliRunner().invoke(app, ["load", "http://127.0.0.1:9", "--clients", "0"])
    assert "numbers from 1 on" in answer.stderr

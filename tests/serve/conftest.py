"""A tiny model of bytes behind a server."""

from pathlib import Path

import pytest
from tests.generate._letters import END, build, letters
from tests.serve._running import Running

from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.runs import Run, TrainSettings
from hippodrome.text.folder import Words
from hippodrome.text.template import Template

TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_run():
    model = build(Mamba2(16), Attention(16))
    words = Words(letters(), None, (END,), None, Template(TEMPLATE, {}), False)
    return Run(model, {}, words.tokenizer, {"kind": "language"}, Path("tiny"), TrainSettings(), None, words)


@pytest.fixture(scope="session")
def tiny(tiny_run):
    running = Running(tiny_run, max_batch=8, queue=8, context=6000, body_bytes=200_000)
    yield running
    running.stop()


@pytest.fixture
def serve(tiny_run):
    made = []

    def start(**settings):
        made.append(Running(tiny_run, **settings))
        return made[-1]

    yield start
    for running in made:
        if running.thread.is_alive():
            running.stop()

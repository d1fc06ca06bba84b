"""The engine: whoever joins and leaves, each request gets what it would have got alone."""

import queue
import random
import re
import subprocess
import sys
import threading
import time

import pytest
import torch
from tests.generate._letters import WORDS, alone, build, fallback_tokenizer, letters, spelt

from hippodrome.generate import _allocator, rows
from hippodrome.generate._allocator import give_back
from hippodrome.generate.batch import RUNS, Batch
from hippodrome.generate.constraint import regex
from hippodrome.generate.decoder import tensors
from hippodrome.generate.engine import Closed, Engine, Full
from hippodrome.generate.prefix_cache import PrefixCache
from hippodrome.generate.request import Ended, Failed, Read, Request, Written
from hippodrome.generate.row import Row
from hippodrome.generate.sampling import Sampler
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2

GREEDY = Sampler(temperature=0.0)


@pytest.fixture(scope="module")
def hybrid():
    return build(Mamba2(16), Attention(16), Mamba(16), Attention(16, window=5))


@pytest.fixture(scope="module")
def recurrent():
    return build(Mamba2(16), Mamba(16))


class Heard:
    """What a request was told."""

    def __init__(self, engine, request):
        self.events = queue.Queue()
        self.all = []
        self.job = engine.submit(request, self.events.put)
        self.request = request

    def until_end(self, seconds=20):
        left = self.request.rows
        while left:
            event = self.events.get(timeout=seconds)
            self.all.append(event)
            left = 0 if isinstance(event, Failed) else left - isinstance(event, Ended)
        return self

    def text(self, row=0):
        return "".join(e.text for e in self.all if isinstance(e, Written) and e.row == row)

    def end(self, row=0):
        return next(e for e in self.all if isinstance(e, Ended) and e.row == row)


@pytest.fixture
def engine_of():
    made = []

    def make(model, tokenizer=None, **options):
        made.append(Engine(model, tokenizer or letters(), **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("kind", ["hybrid", "recurrent"])
def test_joining_and_leaving_at_random_equals_alone(kind, request, engine_of):
    model = request.getfixturevalue(kind)
    chance = random.Random(5)
    engine = engine_of(model, most_rows=5, cache=PrefixCache(1 << 20))
    asked, beginning = [], tuple(chance.randrange(256) for _ in range(300))
    for i in range(14):
        own = tuple(chance.randrange(256) for _ in range(chance.randrange(1, 40)))
        ids = beginning[: chance.choice([256, 290, 300])] + own if i % 4 == 0 else own
        sampler = GREEDY if i % 2 else Sampler(0.8, top_k=20, presence_penalty=0.5)
        asked.append(Request(ids, chance.randrange(1, 12), sampler, chance.choice([1, 1, 2, 3]), seed=i))
    heard = []
    for one in asked:
        heard.append(Heard(engine, one))
        time.sleep(chance.choice([0, 0, 0.003]))
    for found in heard:
        found.until_end()
        for row in range(found.request.rows):
            assert found.text(row) == spelt(alone(model, found.request, row))
            assert found.end(row) == Ended(row, "length", found.request.max_tokens)
    load = engine.load()
    assert load.writing == load.reading == load.waiting == load.state_bytes == 0
    assert load.written == sum(r.rows * r.max_tokens for r in asked)
    assert load.cached > 256, "the beginning was not found again"


def test_a_long_answer_gets_more_slots_for_its_keys(hybrid, engine_of, monkeypatch):
    monkeypatch.setattr("hippodrome.generate.batch.ROOM", 8)
    engine = engine_of(hybrid, most_rows=3)
    both = [Heard(engine, Request(ids, 40, GREEDY)) for ids in ((1, 2, 3, 4, 5), (6, 7, 8))]
    for found in both:
        assert found.until_end().text() == spelt(alone(hybrid, found.request))


def test_ends_stops_and_log_probabilities(recurrent, engine_of):
    engine = engine_of(recurrent)
    ids = tuple(b"What is it? ")
    plain = Heard(engine, Request(ids, 20, GREEDY)).until_end()
    tokens = alone(recurrent, plain.request)
    at = next(i for i in range(3, 20) if tokens[i] not in tokens[:i])
    ended = Heard(engine, Request(ids, 20, GREEDY, ends=frozenset([tokens[at]]))).until_end()
    assert ended.text() == spelt(tokens[:at])
    assert ended.end() == Ended(0, "stop", at + 1)
    text = plain.text()
    cut = Heard(engine, Request(ids, 20, GREEDY, stops=(text[5:8],), logprobs=2)).until_end()
    assert cut.text() == text[: text.index(text[5:8])]
    assert cut.end().reason == "stop"
    told = Heard(engine, Request(ids, 6, GREEDY, logprobs=3, prompt_logprobs=True)).until_end()
    logs = recurrent(torch.tensor([[*ids, *tokens[:6]]]))[0][0].detach().log_softmax(-1)
    read, *written = told.all
    assert isinstance(read, Read)
    assert [token.id for token in read.tokens] == list(ids)
    assert read.tokens[0].logprob is None
    found = [*read.tokens[1:], *(token for e in written if isinstance(e, Written) for token in e.tokens)]
    for place, token in enumerate(found):
        assert token.logprob == pytest.approx(logs[place, token.id].item(), abs=1e-5)
        best = logs[place].topk(3)
        assert [i for i, _ in token.top] == best.indices.tolist()
        assert [p for _, p in token.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_nothing_to_write_and_constraints(recurrent, engine_of):
    engine = engine_of(recurrent)
    none = Heard(engine, Request((1, 2), 0)).until_end()
    assert none.all == [Read(0, ()), Ended(0, "length", 0)]
    rule = regex("[ab]{3}-[0-9]+", letters())
    made = Heard(engine, Request((1, 2), 9, Sampler(), 4, seed=1, constraint=rule)).until_end()

    for row in range(4):
        assert re.fullmatch("[ab]{3}-[0-9]*", made.text(row))
    ended = Heard(engine, Request((1,), 9, Sampler(), constraint=regex("ab|ba", letters()))).until_end()
    assert ended.text() in ("ab", "ba")
    assert ended.end() == Ended(0, "stop", 2)


def test_a_long_prompt_does_not_hold_the_others_up(recurrent, engine_of):
    engine = engine_of(recurrent, most_rows=4)
    first = Heard(engine, Request((5, 6), 4000, GREEDY))
    first.events.get(timeout=5)
    long = Heard(engine, Request(tuple(i % 256 for i in range(6000)), 1))
    short = Heard(engine, Request((7, 8), 3, GREEDY)).until_end()
    assert short.text() == spelt(alone(recurrent, short.request))
    assert long.events.empty(), "the short prompt waited for the long one"
    written = engine.load().written
    long.until_end()
    assert engine.load().written > written + 10, "rows that write waited for the long prompt"
    first.job.cancel()


def test_what_goes_wrong_in_one_request_ends_that_one_alone(recurrent, engine_of):
    engine = engine_of(recurrent, most_rows=3)

    class Broken:
        done = False

        def mask_(self, logits):
            raise RuntimeError("it broke")

        def accept(self, token):
            pass

        def copy(self):
            return self

    good = Heard(engine, Request((1, 2, 3), 60, GREEDY))
    bad = Heard(engine, Request((4, 5), 5, constraint=Broken())).until_end()
    assert bad.all[-1].kind == "internal"
    assert "it broke" in bad.all[-1].message
    assert good.until_end().text() == spelt(alone(recurrent, good.request))
    broken = torch.nn.Parameter(recurrent.embedding.weight.detach().clone())
    with torch.no_grad():
        broken[9] = torch.nan
    before, recurrent.embedding.weight = recurrent.embedding.weight, broken
    try:
        assert Heard(engine, Request((9,), 5)).until_end().all[-1].kind == "invalid"
    finally:
        recurrent.embedding.weight = before
    again = Heard(engine, Request((1, 2, 3), 5, GREEDY)).until_end()
    assert again.text() == spelt(alone(recurrent, again.request))


def test_a_model_that_fails_fails_who_is_there_and_serves_the_next(recurrent, engine_of, monkeypatch):
    engine = engine_of(recurrent, most_rows=3)
    plain, calls = recurrent.advance_, []

    def fails(ids, state):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("no room")
        return plain(ids, state)

    monkeypatch.setattr(recurrent, "advance_", fails)
    both = [Heard(engine, Request((1, 2), 9, GREEDY)), Heard(engine, Request((3, 4), 9, GREEDY))]
    assert {found.until_end().all[-1] for found in both if len(found.all) < 9} >= {
        Failed("internal", "the model failed: no room")
    }
    after = Heard(engine, Request((1, 2), 9, GREEDY)).until_end()
    assert after.text() == spelt(alone(recurrent, after.request))


def test_cancel_deadline_and_limits(recurrent, engine_of):
    engine = engine_of(recurrent, most_rows=2, most_waiting=1, context=5000)
    endless = [Heard(engine, Request((1, 2), 4000, GREEDY)) for _ in range(2)]
    late = Heard(engine, Request((1, 2), 1, seconds=0.05))
    with pytest.raises(Full, match="3 answers"):
        engine.submit(Request((1,), 1), print)
    failed = late.until_end().all[-1]
    assert failed.kind == "deadline"
    assert "0.05 seconds" in failed.message
    for found in endless:
        found.job.cancel()
    done = Heard(engine, Request((1, 2), 2)).until_end()
    assert done.end().tokens == 2
    while engine.load().writing:
        time.sleep(0.001)
    count = endless[0].events.qsize()
    time.sleep(0.02)
    assert endless[0].events.qsize() == count, "who has cancelled is told no more"
    for wrong, words in (
        (Request((), 1), "empty"),
        (Request((1,), -1), "0 or more"),
        (Request((WORDS,), 1), "0 to 256"),
        (Request((1,), 5000), "at most 5000"),
        (Request((1,), 1, rows=3), "at most 2"),
        (Request((1,), 1, Sampler(top_p=2.0)), "top_p"),
    ):
        with pytest.raises(ValueError, match=words):
            engine.submit(wrong, print)
    assert engine.load().waiting == 0


def test_ids_that_are_no_tokens_are_never_chosen(engine_of):
    model = build(Mamba(16), words=WORDS + 7)
    with torch.no_grad():
        # The last words, which no token has, are likelier than all others, wherever.
        model.embedding.weight[WORDS:] = 50 * model.embedding.weight[:7]
    found = Heard(engine_of(model), Request((1, 2, 3), 40, Sampler(temperature=2.0), logprobs=0)).until_end()
    told = [token.id for e in found.all if isinstance(e, Written) for token in e.tokens]
    assert len(told) == 40
    assert max(told) < WORDS


LEFT_OPEN = """
import queue
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate.engine import Engine
from hippodrome.generate.request import Request, Written
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.language import LanguageModel
from tests.generate._letters import WORDS, letters
told = queue.Queue()
engine = Engine(LanguageModel(Stack([Block(Mamba2(64)) for _ in range(4)]), WORDS), letters())
for _ in range(8):
    engine.submit(Request((1, 2), 10**6), told.put)
while not isinstance(told.get(timeout=30), Written):
    pass
"""


def test_an_engine_that_is_left_open_does_not_take_the_process_down():
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_memory_is_given_back_when_many_have_left(recurrent, engine_of, monkeypatch):
    given = []
    monkeypatch.setattr(_allocator, "give_back", lambda: given.append(give_back()))
    engine = engine_of(recurrent)
    for count, times in ((1, 0), (8, 1), (1, 1)):
        for found in [Heard(engine, Request((1, 2), 5, GREEDY)) for _ in range(count)]:
            found.until_end()
        # The engine tells of the end before its round is over.
        Heard(engine, Request((1, 2), 0)).until_end()
        assert len(given) == times
    assert all(isinstance(answer, bool) for answer in given)


def test_closing_finishes_or_says_that_it_does_not(recurrent):
    engine = Engine(recurrent, letters(), most_rows=1)
    short, waiting = (Heard(engine, Request((1, 2), 30, GREEDY)) for _ in range(2))
    engine.close(20.0)
    assert short.until_end().end().tokens == waiting.until_end().end().tokens == 30
    with pytest.raises(Closed):
        engine.submit(Request((1,), 1), print)
    engine = Engine(recurrent, letters(), most_rows=1)
    long, waiting = (Heard(engine, Request((1, 2), 10**6, GREEDY)) for _ in range(2))
    threading.Timer(0.05, engine.close).start()
    assert long.until_end().all[-1].kind == waiting.until_end().all[-1].kind == "closing"


def test_memory_follows_the_rows(hybrid):
    batch = Batch(hybrid, 9)
    with torch.no_grad():
        state = hybrid(torch.tensor([[1, 2]]), hybrid.init_state(1, 8))[1]
        for place in range(9):
            assert batch.add(state) == place
        assert batch.room == 9
        with pytest.raises(ValueError, match="room for 9 rows"):
            batch.add(state)
        batch.next(list(range(9)))
        last = [x.clone() for x in tensors(batch.state(8))]
        for place in (0, 1, 1, 1, 1, 1, 1):
            batch.remove(place)
        assert batch.room == 4
        # When the first row left, the last one moved to its place and stayed there.
        assert all(torch.equal(x, y) for x, y in zip(tensors(batch.state(0)), last, strict=True))
        batch.add(hybrid(torch.tensor([[1, 2]]), hybrid.init_state(1, 30))[1])
        assert batch.state(0)[1].k.shape[1] == 30, "all rows have the slots of the one that has most"
        for _ in range(3):
            batch.remove(0)
        batch.add(state)
        assert batch.state(0)[1].k.shape[1] == 8, "whoever comes next does not pay for who was there before"
    assert batch.bytes() > 0
    batch.remove(0)
    assert batch.bytes() == 0


def test_a_number_of_rows_that_stays_is_recorded_and_goes_on_the_same(hybrid):
    batch = Batch(hybrid, 4)
    prompts = torch.tensor([[1, 2, 3], [7, 8, 9]])
    with torch.no_grad():
        state = hybrid(prompts, hybrid.init_state(2, 64))[1]
        for row in range(2):
            batch.add(rows.take(state, [row]))
        for token in range(44):
            ids = [(3 * token) % 50, (7 * token) % 50]
            found = batch.next(ids)
            expected, state = hybrid.step(torch.tensor(ids), state)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
            assert batch.recorded == ((2,) if token >= RUNS else ())
        batch.add(rows.take(state, [0]))
        assert batch.recorded == (), "more memory is other memory"
        expected = hybrid.step(torch.tensor([1, 2, 1]), rows.take(state, [0, 1, 0]))[0]
        torch.testing.assert_close(batch.next([1, 2, 1]), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("apart", "text"), [(False, " foxs"), (True, "foxs")])
def test_a_continuation_begins_with_its_space_and_an_answer_without(apart, text):
    tokenizer = fallback_tokenizer(["<0xC3>", "<0xA9>", "▁The", "▁fox", "▁", "s"])
    row = Row(Request((3,), 2, GREEDY, apart=apart), 0, 7, tokenizer)
    told = [event for i in (4, 6) for event in row.choose(torch.eye(7)[i])]
    assert "".join(event.text for event in told if isinstance(event, Written)) == text

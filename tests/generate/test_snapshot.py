"""Snapshots and prefix caches: the same next token later, elsewhere, with more room; nothing else gets in."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hippodrome import config
from hippodrome.generate import prefill, rows, snapshot
from hippodrome.generate.decoder import Decoder, tensors
from hippodrome.generate.prefix_cache import PrefixCache
from hippodrome.generate.room import with_room
from hippodrome.generate.snapshot import Snapshot
from hippodrome.models.base import Model

VOCAB = 31
SPEC = {
    "kind": "language",
    "vocab_size": VOCAB,
    "backbone": {
        "kind": "stack",
        "blocks": [
            {"kind": "block", "mixer": {"kind": "mamba2", "d_model": 16, "d_state": 4, "head_dim": 8}},
            {"kind": "block", "mixer": {"kind": "mamba", "d_model": 16, "d_state": 4}},
            {"kind": "block", "mixer": {"kind": "attention", "d_model": 16, "heads": 2}},
            {"kind": "block", "mixer": {"kind": "attention", "d_model": 16, "heads": 2, "window": 3}},
        ],
    },
}


def built(seed: int = 0, spec: dict = SPEC) -> Model:
    torch.manual_seed(seed)
    return config.build(spec).eval()


def prompt(rows_: int = 2, t: int = 9) -> torch.Tensor:
    return torch.randint(VOCAB, (rows_, t), generator=torch.Generator().manual_seed(1))


def greedy(model: Model, logits: torch.Tensor, state: tuple, count: int, fixed: bool = False) -> torch.Tensor:
    """The likeliest tokens from a place on (b, count)."""
    decoder, found = Decoder(model, state, fixed=fixed), []
    for _ in range(count):
        found.append(logits.argmax(-1))
        logits = decoder.next(found[-1])
    return torch.stack(found, 1)


@pytest.fixture(scope="module")
def model() -> Model:
    return built()


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    logits, state = prefill(model, prompt())
    path = tmp_path / "talk.state"
    snapshot.save(path, model, Snapshot(state, prompt(), logits, 4, 7, 12, {"who": "äöü"}), spec=SPEC)
    return path


def test_what_was_saved_comes_back(model, saved):
    logits, state = prefill(model, prompt())
    found = snapshot.load(saved, model, spec=SPEC)
    assert torch.equal(found.ids, prompt())
    assert torch.equal(found.logits, logits)
    assert (found.written, found.seed, found.drawn, found.notes) == (4, 7, 12, {"who": "äöü"})
    for ours, theirs in zip(tensors(found.state), tensors(state), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert [type(part) for part in found.state] == [type(part) for part in state]
    assert saved.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("saved_with", [None, 9, 30])
@pytest.mark.parametrize("loaded_with", [None, 20, 64])
def test_it_goes_on_the_same_with_any_room(model, tmp_path, saved_with, loaded_with):
    logits, state = prefill(model, prompt(), max_length=saved_with)
    _, free = prefill(model, prompt())
    want = greedy(model, logits, free, 10)
    snapshot.save(tmp_path / "a", model, Snapshot(state, prompt(), logits))
    found = snapshot.load(tmp_path / "a", model, max_length=loaded_with)
    assert torch.equal(greedy(model, found.logits, found.state, 10, fixed=loaded_with is not None), want)
    if loaded_with is not None:
        assert found.state[2].k.shape[1] == loaded_with


def test_the_file_does_not_hold_empty_room(model, tmp_path):
    for room in (9, 3000):
        _, state = prefill(model, prompt(), max_length=room)
        snapshot.save(tmp_path / str(room), model, Snapshot(state, prompt()))
    assert (tmp_path / "9").stat().st_size == (tmp_path / "3000").stat().st_size


def test_a_fresh_process_says_the_same_next_tokens(model, saved):
    logits, state = prefill(model, prompt())
    code = (
        "import json, sys, torch\n"
        "from hippodrome import config\n"
        "from hippodrome.generate import snapshot\n"
        "from hippodrome.generate.decoder import Decoder\n"
        "torch.manual_seed(0)\n"
        f"model = config.build(json.loads({json.dumps(json.dumps(SPEC))})).eval()\n"
        "found = snapshot.load(sys.argv[1], model)\n"
        "decoder, logits, ids = Decoder(model, found.state), found.logits, []\n"
        "for _ in range(12):\n"
        "    ids.append(logits.argmax(-1))\n"
        "    logits = decoder.next(ids[-1])\n"
        "print(json.dumps([torch.stack(ids, 1).tolist(), logits.tolist()]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    ids, last = json.loads(answer.stdout)
    decoder, want = Decoder(model, state), []
    for _ in range(12):
        want.append(logits.argmax(-1))
        logits = decoder.next(want[-1])
    assert ids == torch.stack(want, 1).tolist()
    assert last == logits.tolist()


def test_bfloat16(tmp_path):
    model = built().to(torch.bfloat16)
    logits, state = prefill(model, prompt())
    snapshot.save(tmp_path / "a", model, Snapshot(state, prompt(), logits))
    found = snapshot.load(tmp_path / "a", model)
    assert found.state[2].k.dtype == torch.bfloat16
    assert found.state[0].S.dtype == torch.float32
    assert torch.equal(greedy(model, found.logits, found.state, 8), greedy(model, logits, state, 8))
    with pytest.raises(ValueError, match="layers, sizes or precision differ"):
        snapshot.load(tmp_path / "a", built())


def test_another_model_other_weights_and_another_spec_are_refused(model, saved):
    with pytest.raises(ValueError, match="other weights"):
        snapshot.load(saved, built(seed=1))
    trained = built()
    with torch.no_grad():
        for p in trained.parameters():
            p.add_(1e-6)
    with pytest.raises(ValueError, match="other weights"):
        snapshot.load(saved, trained)
    shallow = {**SPEC, "backbone": {**SPEC["backbone"], "blocks": SPEC["backbone"]["blocks"][:3]}}
    with pytest.raises(ValueError, match="of another model"):
        snapshot.load(saved, built(spec=shallow))
    with pytest.raises(ValueError, match="of another model"):
        snapshot.load(saved, model, spec={**SPEC, "tie": False})


def test_a_file_cut_off_or_changed_is_refused(model, saved, tmp_path):
    raw = saved.read_bytes()
    for length in (0, 5, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut").write_bytes(raw[:length])
        with pytest.raises(ValueError, match="cannot be read as a state"):
            snapshot.load(tmp_path / "cut", model)
    changed = bytearray(raw)
    changed[-3] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    with pytest.raises(ValueError, match="changed or damaged"):
        snapshot.load(tmp_path / "changed", model)
    with safe_open(saved, framework="pt") as file:
        told = dict(file.metadata())
    told["head"] = told["head"].replace('"seed": 7', '"seed": 8')
    save_file(load_file(saved), tmp_path / "head", metadata=told)
    with pytest.raises(ValueError, match="changed or damaged"):
        snapshot.load(tmp_path / "head", model)
    save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="no state"):
        snapshot.load(tmp_path / "other", model)
    with pytest.raises(ValueError, match="there is no file"):
        snapshot.load(tmp_path / "none", model)
    with pytest.raises(ValueError, match="room"):
        snapshot.load(saved, model, max_length=8)


def test_a_save_that_fails_leaves_the_old_file(model, saved, tmp_path):
    _, state = prefill(model, prompt())
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="got 3 rows of ids"):
        snapshot.save(saved, model, Snapshot(state, prompt(3)))
    assert saved.read_bytes() == before
    with pytest.raises(OSError, match="could not be written"):
        snapshot.save(tmp_path / "nowhere" / "a", model, Snapshot(state, prompt()))
    assert not list(tmp_path.glob(".*"))


def test_a_fork_goes_two_ways_each_like_its_own_run(model):
    """Two continuations of one state, each read on its own, equal the runs over the whole texts."""
    start = prompt(1, 9)
    _, state = prefill(model, start)
    forked = rows.take(state, [0, 0])
    ways = torch.tensor([[3, 5, 8, 13], [2, 4, 16, 25]])
    logits, _ = prefill(model, ways, forked)
    for i, way in enumerate(ways):
        want, _ = prefill(model, torch.cat([start, way[None]], 1))
        torch.testing.assert_close(logits[i : i + 1], want, rtol=1e-5, atol=1e-5)
        alone, _ = prefill(model, way[None], rows.take(forked, [i]))
        torch.testing.assert_close(alone, want, rtol=1e-5, atol=1e-5)
    untouched, _ = prefill(model, ways[:1], state)
    torch.testing.assert_close(untouched, logits[:1], rtol=1e-5, atol=1e-5)


def test_room_moves_a_state_between_its_forms(model):
    _, free = prefill(model, prompt())
    _, roomy = prefill(model, prompt(), max_length=40)
    moved = with_room(model, free, 9, 40)
    back = with_room(model, moved, 9, None)
    for state, want in ((moved, roomy), (back, free)):
        assert [type(part) for part in state] == [type(part) for part in want]
        for ours, theirs in zip(tensors(state), tensors(want), strict=True):
            torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="needs room"):
        with_room(model, free, 9, 8)


# Prefix cache


def entry(fill: float, floats: int = 25) -> tuple[tuple, torch.Tensor]:
    return (torch.full((1, floats), float(fill)),), torch.full((1, 5), float(fill))


def test_the_longest_known_beginning_is_found():
    cache = PrefixCache(10_000)
    for length in (2, 4, 7):
        cache.put(list(range(length)), *entry(length))
    cache.put([9, 9, 9], *entry(99))
    assert cache.longest([5, 6]) is None
    assert cache.longest([0]) is None
    for asked, want in ((2, 2), (3, 2), (4, 4), (6, 4), (7, 7), (50, 7)):
        hit = cache.longest(torch.arange(asked))
        assert hit is not None
        assert hit.length == want
        assert float(hit.logits[0, 0]) == want
    assert cache.longest([0, 1, 2, 9]).length == 2
    counts = cache.counts
    assert (counts.hits, counts.misses, counts.entries) == (7, 2, 4)


def test_bytes_are_counted_exactly_and_the_oldest_go_first():
    each = 4 * 30 + 8 * 3
    cache = PrefixCache(3 * each)
    for i in range(3):
        assert cache.put([i, i, i], *entry(i))
    assert cache.counts.bytes == 3 * each
    cache.longest([0, 0, 0])  # used, so that 1 is now the oldest
    cache.put([3, 3, 3], *entry(3))
    assert cache.longest([1, 1, 1]) is None
    assert cache.longest([0, 0, 0]) is not None
    assert cache.counts.bytes == 3 * each
    assert cache.counts.evictions == 1
    assert not cache.put([4, 4, 4], *entry(4, floats=1000))
    assert cache.counts.entries == 3
    assert not PrefixCache(0).put([1], *entry(1))
    cache.clear()
    assert (cache.counts.bytes, cache.counts.entries) == (0, 0)
    assert cache.longest([0, 0, 0]) is None


def test_entries_are_copies_in_memory_of_their_own():
    cache = PrefixCache(10_000)
    large = torch.zeros(1000, 25)
    cache.put([1], (large[3:4],), torch.zeros(1, 5))
    large.fill_(1)
    hit = cache.longest([1])
    assert float(hit.state[0].sum()) == 0
    assert hit.state[0].untyped_storage().nbytes() == 100
    cache.put([1], *entry(5))  # there already
    assert cache.counts.entries == 1


def test_many_threads_keep_the_budget():
    cache = PrefixCache(20 * 150)
    faults: list[str] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(150):
            ids = torch.randint(
                3, (int(torch.randint(1, 5, (1,), generator=generator)),), generator=generator
            )
            fill = float(sum(3**i * int(x) for i, x in enumerate(ids)) + 1000 * len(ids))
            hit = cache.longest(ids)
            if hit is not None:
                known = ids[: hit.length]
                want = sum(3**i * int(x) for i, x in enumerate(known)) + 1000 * len(known)
                if float(hit.state[0][0, 0]) != want:
                    faults.append("a state of other tokens")
            cache.put(ids, *entry(fill))
            if cache.counts.bytes > cache.budget:
                faults.append("over the budget")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    held = sum(4 * 30 + len(e.ids) for e in cache._entries.values())
    assert cache.counts.bytes == held


def test_reading_on_from_the_cache_equals_reading_all(model):
    cache = PrefixCache(1 << 20)
    text = prompt(1, 20)
    logits, state = prefill(model, text[:, :13])
    cache.put(text[0, :13], state, logits)
    hit = cache.longest(text[0])
    assert hit is not None
    found, _ = prefill(model, text[:, hit.length :], hit.state)
    want, _ = prefill(model, text)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)

"""Pictures and captions interleaved: what a sequence holds, what is asked, and which token is what."""

from pathlib import Path

import numpy as np
import pytest

from hippodrome.config import build
from hippodrome.data import open_source
from hippodrome.data.interleaved import LETTERS
from hippodrome.shapes import TokenBatch


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 7], 30)
    images = random.integers(0, 128, (60, 4, 4), dtype=np.uint8)
    images[labels == 7] += 128
    np.savez(tmp_path / "both.npz", inputs=images, labels=labels)
    return tmp_path / "both.npz"


def test_a_sequence_holds_captions_and_their_pictures(pictures: Path) -> None:
    task = open_source(pictures, kind="language", pairs=3, size=2, count=20)
    mark, first = len(LETTERS), len(LETTERS) + 1
    longest = 3 * (2 * 2 + 1 + len("seven ")) - 1
    seen = set()
    for i in range(20):
        tokens, targets = (part.numpy() for part in task.train[i])
        assert len(tokens) == longest
        asked = targets != -100
        np.testing.assert_array_equal(targets[:-1][asked[:-1]], tokens[1:][asked[:-1]])
        row = np.append(tokens[asked], targets[asked][-1])
        text = "".join(LETTERS[t] if t < mark else "#" for t in row)
        for place in np.flatnonzero(row == mark):
            levels = row[place + 1 : place + 5] - first
            dark = bool((levels < 8).all())
            assert dark or (levels >= 8).all()
            name = "zero" if dark else "seven"
            assert text[:place].endswith(f"{name} ") or text[place + 5 :].startswith(f"{name} ")
            seen.add((dark, text[:place].endswith(f"{name} ")))
    assert len(seen) == 4
    assert (row == mark).sum() == 3


def test_a_model_is_told_the_modality_of_each_token(pictures: Path) -> None:
    task = open_source(pictures, kind="language", size=2, count=8)
    kinds = task.facts["modalities"]
    assert len(kinds) == task.facts["vocab_size"] == len(LETTERS) + 1 + 16
    assert [kinds[0], kinds[len(LETTERS) - 1], kinds[len(LETTERS)], kinds[-1]] == [0, 0, 1, 1]
    mixer = {"kind": "mixture_of_mamba", "d_model": 8, "d_state": 4}
    stack = {"kind": "stack", "blocks": [{"kind": "block", "mixer": mixer, "mlp": None}]}
    model = build({"kind": "language", "backbone": stack, **task.facts})
    batch = task.collate([task.train[i] for i in range(4)])
    assert isinstance(batch, TokenBatch)
    model.loss(batch).backward()
    for copy in (0, 1):
        assert model.get_parameter(f"backbone.blocks.0.mixer.in_proj.{copy}.weight").grad.any()
    found = model.metrics(batch)
    apart = [found["nats_text"], found["nats_image"]]
    assert sum(m.count for m in apart) == found["nats"].count
    assert float(sum(m.total for m in apart)) == pytest.approx(float(found["nats"].total))
    whole, _ = model(batch.tokens)
    state, steps = model.init_state(4), []
    for t in range(batch.tokens.shape[1]):
        logits, state = model.step(batch.tokens[:, t], state)
        steps.append(logits)
    np.testing.assert_allclose(np.stack([s.detach() for s in steps], 1), whole.detach(), atol=1e-5)
    stack["blocks"][0]["mixer"] = {"kind": "mamba", "d_model": 8}
    plain = build({"kind": "language", "backbone": stack, **task.facts})
    assert "nats_image" in plain.metrics(batch)


def test_what_cannot_be_meant_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a size of 1 or more"):
        open_source(pictures, kind="language", size=0)
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((60, 5, 2)), labels=np.repeat([0, 1], 30))
    with pytest.raises(ValueError, match=r"images for data\.order"):
        open_source(tmp_path / "rows.npz", kind="language")
    facts = {"vocab_size": 11, "backbone": {"kind": "stack", "blocks": [
        {"kind": "block", "mixer": {"kind": "min_gru", "d_model": 8}}]}}  # fmt: skip
    with pytest.raises(ValueError, match="for each of the 11 token ids"):
        build({"kind": "language", **facts, "modalities": [0, 1]})
    with pytest.raises(ValueError, match="a name for each modality"):
        build({"kind": "language", **facts, "modalities": [0] * 11, "modality_names": ["a", "b"]})

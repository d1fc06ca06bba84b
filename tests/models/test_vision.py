"""The picture classifier: stems, positions, class token, stochastic depth, sources, and the command line."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hippodrome import config
from hippodrome.data import open_source
from hippodrome.layers.drop_path import DropPath
from hippodrome.models.vision import VisionModel


def vision(pattern="bi-min_gru", width=8, depth=2, options=None, **given):
    size, patch = given.get("size", [8, 12]), given.get("patch", 4)
    filled = config.with_sizes(pattern, options, [side // patch for side in size])
    stack = config.stack_spec(pattern, width, depth, options=filled, norm="layer")
    return {"kind": "vision", "classes": list("abc"), "size": size, "backbone": stack, **given}


@pytest.fixture
def archive(tmp_path):
    """Pictures of 8 x 8 whose class is the corner that is bright."""
    numbers = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pictures = numbers.integers(0, 60, (120, 8, 8), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        i, j = divmod(int(label), 2)
        picture[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] += 120
    path = tmp_path / "corners.npz"
    np.savez(path, inputs=pictures, labels=labels, split=np.repeat(["train", "test"], [90, 30]))
    return path


@pytest.mark.parametrize(
    ("given", "tokens"), [({}, 6), ({"stem": "normed"}, 6), ({"stem": "convs"}, 6), ({"patch": 2}, 24)]
)
def test_stems_make_a_token_of_each_patch(given, tokens):
    model = config.build(vision(**given))
    x = torch.randn(2, 96, 3)
    assert model.embed(x).shape == (2, tokens, 8)
    assert model.logits(x).shape == (2, 3)


def test_the_plain_stem_is_a_linear_map_of_each_patch():
    model = config.build(vision(location=[0.1, 0.2, 0.3], scale=[2.0, 0.0, 4.0])).double()
    x = torch.randn(1, 96, 3, dtype=torch.float64)
    x[0, 5, 1] = float("nan")
    location, scale = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([2.0, 1.0, 4.0])
    seen = torch.nan_to_num((x - location.double()) / scale, nan=0.0)
    patches = F.unfold(seen.unflatten(1, (8, 12)).permute(0, 3, 1, 2), 4, stride=4).transpose(1, 2)
    conv = model.stem[0]
    assert torch.allclose(model.embed(x), patches @ conv.weight.flatten(1).T + conv.bias, atol=1e-6)


def test_the_class_token_stands_in_the_middle_and_is_what_is_read():
    model = config.build(vision(pooling="token"))
    assert model.positions.shape == (7, 8)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 96, 3)
    y = model.logits(x)
    assert torch.allclose(seen[0][:, 3] - model.positions[3], model.token.expand(2, -1))
    with torch.no_grad():
        assert torch.allclose(y, model.head(model.backbone(seen[0])[0][:, 3]))


def test_places_are_learned_where_all_tokens_stay():
    assert config.build(vision()).positions.shape == (6, 8)
    pyramid = config.build(vision("pyramid:ss2d", options={"ss2d": {"d_state": 2}}))
    assert pyramid.positions is None
    assert pyramid.head.in_features == 16
    assert pyramid.logits(torch.randn(2, 96, 3)).shape == (2, 3)


def test_the_last_block_is_dropped_most():
    model = config.build(vision(depth=3, drop_path=0.4))
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    x = torch.randn(4, 96, 3)
    model.train()
    assert not torch.equal(model.logits(x), model.logits(x))
    model.eval()
    assert torch.equal(model.logits(x), model.logits(x))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": ["a"]}, "two classes"),
        ({"patch": 5}, "Take a patch that divides both"),
        ({"patch": 1, "stem": "convs"}, "power of two"),
        ({"location": [0.0]}, "each of the 3 channels"),
        ({"pattern": "ss2d", "pooling": "token"}, "leaves no grid"),
    ],
)
def test_models_that_cannot_be(given, said):
    with pytest.raises(ValueError, match=said):
        config.build(vision(**given))


def test_pixels_that_are_no_picture_are_refused():
    model = VisionModel.example()
    for call in (
        lambda: model(torch.zeros(1, 47, 1)),
        lambda: model.step(torch.zeros(1, 1), ()),
        lambda: model(torch.zeros(1, 48, 1), resets=torch.zeros(1, 48, dtype=torch.bool)),
    ):
        with pytest.raises(ValueError, match="6 x 8 = 48 pixels"):
            call()


def test_pictures_are_a_task_of_their_own(archive):
    task = open_source(archive, kind="vision")
    assert (task.kind, task.facts["size"], task.facts["channels"]) == ("vision", [8, 8], 1)
    rows = open_source(archive, order="pixels")
    assert torch.equal(task.train[3].inputs, rows.train[3].inputs)
    assert config.grid("vision", {**task.facts, "patch": 2}, {}) == [4, 4]
    assert config.grid("vision", task.facts, {}) == [2, 2]
    np.savez(archive, inputs=np.zeros((9, 5, 2), np.float32), labels=np.arange(9) % 3)
    with pytest.raises(ValueError, match="uint8"):
        open_source(archive, kind="vision")

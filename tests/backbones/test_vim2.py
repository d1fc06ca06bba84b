"""ViM2: stages, their order of mixers and grids, gradients of every weight, and its recipes' sizes."""

from importlib import import_module

import pytest
import torch

from hippodrome import config
from hippodrome.backbones.vim2 import ViM2

SIZES = {"tiny": (20e6, -0.034), "small": (43e6, -0.217)}
"""Published parameters, and how far off is what the paper leaves open and the recipe fills in."""


def made(**options) -> ViM2:
    torch.manual_seed(0)
    given = {"vim2": {"sizes": [5, 6], **options}, "ss2d": {"sizes": [5, 6], "d_state": 2}}
    spec = config.stack_spec("vim2:ss2d:channel_scan", 4, 1, options=given)
    return config.build(spec, "backbones").double().eval()


def test_stages_have_their_grids_widths_and_mixers() -> None:
    model = made(depths=[2, 4], every=2)
    assert [stage.order for stage in model.stages] == [[False] * 2 + [True], [False, False, True] * 2]
    assert [mixer.sizes for mixer in model.stages[1].tokens] == [[3, 3]] * 4
    assert (model.d_model, model.d_out) == (4, 8)
    y, state = model(torch.randn(2, 30, 4, dtype=torch.float64))
    assert (y.shape, state) == ((2, 9, 8), ())


def test_averages_stay_within_a_stage() -> None:
    """At the start a stage is a chain of residual branches, and stages follow one another."""
    model = made(depths=[1, 1])
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    expected = x
    for i, stage in enumerate(model.stages):
        expected = model.halves[0](expected, [5, 6]) if i else expected
        for norm, mixer in zip(stage.norms, (stage.tokens[0], stage.channels[0]), strict=True):
            expected = expected + mixer(norm(expected))[0]
    torch.testing.assert_close(model(x)[0], model.norm(expected), rtol=1e-11, atol=1e-13)


def test_every_weight_gets_a_gradient() -> None:
    model = made(depths=[2, 1])
    y, _ = model(torch.randn(2, 30, 4, dtype=torch.float64))
    (y.square() * torch.arange(8)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("size", SIZES)
def test_how_far_the_recipes_are_from_the_published_sizes(size: str) -> None:
    made = import_module(f"hippodrome.recipes.vim2_{size}").RECIPE
    facts = {"classes": [str(i) for i in range(1000)], "size": [224, 224], "patch": 4, "stem": "normed"}
    count = config.count_parameters({"kind": "vision", **facts, "backbone": made.model.stack()})
    published, off = SIZES[size]
    assert count / published - 1 == pytest.approx(off, abs=0.01)


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="whole grids of 5 x 6 = 30 tokens"):
        made()(torch.zeros(1, 29, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="neither a state nor a step"):
        made().init_state(1)
    with pytest.raises(ValueError, match="one for each stage"):
        made(depths=[1, 1], widths=[1])
    with pytest.raises(ValueError, match="the options depths, every, widths"):
        made(depth=[1, 1])

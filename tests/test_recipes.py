"""Recipes: each file is one recipe under its own name, builds, and has the parameters it claims."""

import math
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

import hippodrome.recipes
from hippodrome.config import Recipe, build, count_parameters, kinds, published
from hippodrome.shapes import SeriesBatch
from hippodrome.train.settings import TrainSettings

NAMES = sorted(
    p.stem for p in Path(hippodrome.recipes.__path__[0]).glob("*.py") if not p.stem.startswith("_")
)
FULL_SIZE = {"mamba2_hybrid_8b", "mamba2_hybrid_small", "nemotron_h_8b", "zamba2_2_5b"}
"""Recipes whose groups of heads, or places of shared layers, are for their full size alone."""


def recipe(name: str) -> Recipe:
    found = [v for v in vars(import_module(f"hippodrome.recipes.{name}")).values() if isinstance(v, Recipe)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_its_files_name_and_a_citation(name: str) -> None:
    made = recipe(name)
    assert made.name == name
    assert re.search(r"@\w+\{\w+,", made.citation)
    assert "year" in made.citation
    # A name that is a mixer's too would hide the mixer on the command line.
    assert name not in kinds("mixers")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_small_and_its_training_is_understood(name: str) -> None:
    made = recipe(name)
    frame = made.model.options.get("conv_s5", {}).get("sizes", [8, 8])
    stack = made.model.stack(d_model=math.prod(frame), depth=1)  # one channel a point where tokens are frames
    head = {"kind": "classification", "classes": ["a", "b"], "channels": 3}
    head |= {"kind": "vision", **made.model.vision} if made.model.vision else {}
    if made.model.forecasting or stack is None:
        head = {
            "kind": "forecasting",
            "channels": 7,
            "look_back": 96,
            "horizon": 96,
            **made.model.forecasting,
        }
    with torch.device("meta" if name in FULL_SIZE or made.model.vision else "cpu"):
        build({**head, "backbone": made.model.stack() if name in FULL_SIZE else stack})
    TrainSettings.model_validate({**made.training, "budget": "1steps"})


@pytest.mark.parametrize("name", [name for name in NAMES if recipe(name).model.forecasting])
def test_a_recipe_of_a_forecaster_learns_any_number_of_variates(name: str) -> None:
    facts = {"channels": 3, "look_back": 96, "horizon": 5}
    made = published.spec_of(recipe(name), "forecasting", facts, {})
    model = build({"kind": "forecasting", **facts, **made})
    past, future = torch.randn(2, 96, 3), torch.randn(2, 5, 3)
    model.loss(SeriesBatch(past, future)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_published_sizes_give_published_parameters() -> None:
    facts = {"channels": 7, "look_back": 336, "horizon": 96, "quantiles": []}
    spec = {"kind": "forecasting", **facts, **published.spec_of(recipe("dlinear"), "forecasting", facts, {})}
    assert count_parameters(spec) == 2 * (336 * 96 + 96)
    facts["look_back"] = 96
    for name, mixer in (
        ("itransformer", 4 * (256 * 256 + 256)),
        # Maps in (x and gate), to step, B and C, from a step of rank 16, and out; taps, A, D of a channel.
        ("s_mamba", 2 * (256 * 512 + 256 * 20 + 16 * 256 + 256 + 256 * 256 + 256 * (2 + 1 + 2 + 1))),
    ):
        made = published.spec_of(recipe(name), "forecasting", facts, {})
        layer = mixer + 2 * (256 * 256 + 256) + 2 * 2 * 256
        around = (96 * 256 + 256) + 2 * 256 + (256 * 96 + 96)
        assert count_parameters({"kind": "forecasting", **facts, **made}) == 2 * layer + around, name


@pytest.mark.parametrize("name", NAMES)
def test_claimed_numbers_of_parameters_are_exact(name: str) -> None:
    made = recipe(name)
    for claim in made.claims:
        assert claim.source
        if claim.metric in ("parameters", "active parameters"):
            vocabulary = int(re.search(r"vocabulary (\d+)", claim.task)[1])
            spec = {
                "kind": "language",
                "vocab_size": vocabulary,
                "backbone": made.model.stack(),
                "tie": made.model.tie,
                **made.model.language,
            }
            active = claim.metric == "active parameters"
            assert count_parameters(spec, active=active) == claim.value


def test_the_small_s4d_has_the_published_parameters_and_those_of_its_trained_input_map() -> None:
    stack = recipe("s4d_lin").model.stack()
    facts = {"classes": list("abcdefghij"), "channels": 3, "pooling": "mean"}
    spec = {"kind": "classification", **facts, "backbone": stack}
    # Published: layers of dt, A, C, D, a map to 2 d and a norm; encoder, decoder. Ours: B and a last norm.
    layer = 128 + 2 * 128 * 32 + 2 * 128 * 32 + 128 + (128 * 256 + 256) + 2 * 128
    published = 4 * layer + (3 * 128 + 128) + (128 * 10 + 10)
    assert count_parameters(spec) - published == 4 * 2 * 128 * 32 + 2 * 128

"""Configuration: kinds by looking, schemas from signatures, mistakes all at once, patterns, widths."""

import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import hippodrome.mixers
from hippodrome import config
from hippodrome.backbones import MIXERS
from hippodrome.mixers.base import Mixer
from hippodrome.models.language import LanguageModel


def language(pattern: str = "min_gru", width: int = 16, depth: int = 2, **given) -> dict:
    return {
        "kind": "language",
        "vocab_size": 32,
        "backbone": config.stack_spec(pattern, width, depth, **given),
    }


NEWCOMER = '''
"""A newcomer."""
import torch
from torch import Tensor, nn
from typing import NamedTuple
from hippodrome.mixers.base import Mixer, run_steps

class Nothing(NamedTuple):
    seen: Tensor

class Newcomer(Mixer):
    def __init__(
        self, d_model: int, heads: int = 5, clamp: float = float("inf"), taps: tuple[int, ...] = (1, 2)
    ):
        super().__init__()
        if d_model % heads:
            raise ValueError(f"heads must divide d_model; got {heads} and {d_model}")
        self.d_model, self.heads, self.clamp, self.taps = d_model, heads, clamp, taps
        self.weight = nn.Parameter(torch.zeros(d_model, d_model))
    def init_state(self, batch, max_length=None):
        return Nothing(torch.zeros(batch, 1))
    def step(self, x_t, state, *, dt_t=None):
        return x_t @ self.weight, state
    def forward(self, x, state=None, *, resets=None, dt=None):
        return run_steps(self, x, state, resets=resets, dt=dt)
    @classmethod
    def example(cls):
        return cls(10)
'''


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """One new file among the mixers, gone again afterwards."""
    (tmp_path / "newcomer.py").write_text(NEWCOMER)
    (tmp_path / "_helper.py").write_text("")
    hippodrome.mixers.__path__.append(str(tmp_path))
    yield tmp_path
    hippodrome.mixers.__path__.remove(str(tmp_path))
    sys.modules.pop("hippodrome.mixers.newcomer", None)


def test_listing_kinds_imports_no_torch():
    code = (
        "import sys; from hippodrome.config import kinds, parse_pattern; print(kinds('mixers'));"
        "parse_pattern('mamba+attention'); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'mamba'" in found
    assert found.endswith("False\n")


def test_every_kind_is_found_and_named():
    for family in ("mixers", "backbones", "models"):
        for kind in config.kinds(family):
            assert issubclass(config.find(family, kind), nn.Module)
    assert all(issubclass(config.find("mixers", kind), Mixer) for kind in config.kinds("mixers"))
    assert {"mamba", "attention", "s4d"} <= set(config.kinds("mixers"))
    assert not {"base", "_lti"} & set(config.kinds("mixers"))


@pytest.mark.parametrize(
    ("family", "kind", "said"),
    [
        ("mixers", "mambo", "did you mean 'mamba"),
        ("mixer", "x", "did you mean 'mixers'"),
        ("models", "q", "there is "),
    ],
)
def test_unknown_kinds_get_the_nearest_name(family, kind, said):
    with pytest.raises(ValueError, match=said):
        config.find(family, kind)


def test_a_new_file_is_a_new_kind(newcomer):
    assert "newcomer" in config.kinds("mixers")
    assert "_helper" not in config.kinds("mixers")
    model = config.build(language("newcomer+min_gru", 10))
    assert type(model.backbone.blocks[0].mixer).__name__ == "Newcomer"


def test_values_keep_their_types_through_json(newcomer):
    checked = config.validate(language("newcomer", 10))
    again = config.validate(json.loads(json.dumps(checked)))
    assert again == checked
    mixer = config.build(again).backbone.blocks[0].mixer
    assert mixer.taps == (1, 2)
    assert mixer.clamp == math.inf


def test_the_defaults_are_written_out():
    checked = config.validate(language())
    assert checked["tie"] is True
    assert checked["backbone"]["blocks"][0]["norm"] == "rms"
    defaults = {"d_hidden": None, "activation": "silu", "bias": False, "gate_scale": 1.0}
    assert checked["backbone"]["blocks"][1]["mlp"] == {"kind": "mlp", "d_model": 16, **defaults}
    torch.manual_seed(1)
    first = config.build(language()).state_dict()
    torch.manual_seed(1)
    second = config.build(checked).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_all_mistakes_are_told_at_once_with_their_paths():
    spec = language()
    blocks = spec["backbone"]["blocks"]
    blocks[0]["mixer"]["d_modle"] = 3
    blocks[1]["mixer"]["kind"] = "min_gur"
    blocks[1]["norm"] = "rsm"
    del blocks[0]["mlp"]["d_model"]
    spec |= {"vocab_size": "many", "bakcbone": {}}
    with pytest.raises(ValueError, match="not described rightly") as error:
        config.build(spec)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(lines) == sorted(
        [
            "bakcbone: language has no such key; did you mean 'backbone'?",
            "backbone.blocks.0.mixer.d_modle: min_gru has no such key; did you mean 'd_model'?",
            "backbone.blocks.0.mlp.d_model: is required",
            "backbone.blocks.1.mixer: there is no mixer 'min_gur' here; did you mean 'min_gru'?",
            "backbone.blocks.1.norm: input should be 'rms', 'rms1', 'layer' or 'none'; got 'rsm'",
            "vocab_size: input should be a valid integer, unable to parse string as an integer; got 'many'",
        ]
    )


def test_constructors_refusals_come_with_their_path_and_are_told_once(newcomer):
    with pytest.raises(ValueError, match="cannot be built") as error:
        config.build(language("newcomer", 12, 3))
    assert "backbone.blocks.0.mixer: heads must divide d_model; got 5 and 12 (and 2 more like it)" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "names no kind"),
        (
            {"kind": "language", "vocab_size": 3, "backbone": 7},
            "backbone: is a backbone, so a table .* got 7",
        ),
        ({"kind": "language", "vocab_size": 3, "backbone": {"kind": "block"}}, "mixer: is required"),
        ({"kind": "langauge"}, "did you mean 'language'"),
        ({"kind": ["language"]}, "there is no model"),
    ],
)
def test_shapes_of_specs(spec, said):
    with pytest.raises(ValueError, match=said):
        config.build(spec)


def test_parts_can_be_built_alone():
    assert isinstance(config.build({"kind": "min_gru", "d_model": 8}, "mixers"), Mixer)


@pytest.mark.parametrize("kind", ["mamba2", "seqboat", "gss", "lru", "longvq"])
def test_a_size_below_one_is_refused_whatever_takes_it(kind):
    with pytest.raises(ValueError, match="d_state is a size, 1 or more; got -1"):
        config.build({"kind": kind, "d_model": 16, "d_state": -1}, "mixers")
    with pytest.raises(ValueError, match="d_model is a size"):
        config.build({"kind": kind, "d_model": 0}, "mixers")


def test_schemas_tell_kinds_apart():
    found = config.schema(LanguageModel)
    assert found["properties"]["kind"]["const"] == "language"
    assert found["properties"]["backbone"]["discriminator"] == {"propertyName": "kind"}
    assert {"$ref": "#/$defs/backbones.stack"} in found["properties"]["backbone"]["oneOf"]
    mixer = found["$defs"]["backbones.block"]["properties"]["mixer"]
    assert {option["$ref"] for option in mixer["oneOf"]} == {
        f"#/$defs/mixers.{kind}" for kind in [*config.kinds("mixers"), *MIXERS]
    }
    assert found["$defs"]["mixers.mamba"]["required"] == ["kind", "d_model"]
    json.dumps(found)


def test_every_mixer_has_a_schema():
    for kind in config.kinds("mixers"):
        assert config.schema(config.find("mixers", kind))["properties"]["kind"]["const"] == kind


@pytest.mark.parametrize(
    ("pattern", "depth", "layers"),
    [
        ("mamba", 3, ["mamba"] * 3),
        ("mamba", None, ["mamba"]),
        ("mamba2x3+attention", None, ["mamba2"] * 3 + ["attention"]),
        ("mamba2x3+attention", 6, ["mamba2"] * 3 + ["attention"] + ["mamba2"] * 2),
        ("mamba2x3 + attention", 2, ["mamba2"] * 2),
        ("min_grux2+lru", 3, ["min_gru", "min_gru", "lru"]),
    ],
)
def test_patterns(pattern, depth, layers):
    assert list(config.parse_pattern(pattern, depth)) == layers


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "got ''"),
        ("mamba+", "kinds joined by"),
        ("mambax0", "1 or more"),
        ("mambo", r"there is no mixer 'mambo' \(in the pattern 'mambo'\); did you mean 'mamba"),
        ("mamba2y3", "did you mean 'mamba2'"),
    ],
)
def test_bad_patterns(pattern, said):
    with pytest.raises(ValueError, match=said):
        config.parse_pattern(pattern, 4)


def test_depth_counts_layers():
    with pytest.raises(ValueError, match="1 or more"):
        config.parse_pattern("mamba", 0)


def test_stacks_take_options_by_kind():
    spec = config.stack_spec(
        "mamba+min_gru", 16, 3, options={"mamba": {"d_state": 4}}, mlp=["min_gru"], d_hidden=24
    )
    mixers = [block["mixer"] for block in spec["blocks"]]
    assert [m.get("d_state") for m in mixers] == [4, None, 4]
    assert [block["mlp"] for block in spec["blocks"]] == [
        None,
        {"kind": "mlp", "d_model": 16, "d_hidden": 24},
        None,
    ]
    config.build(spec, "backbones")
    with pytest.raises(ValueError, match=r"options for 'mamab'.*did you mean 'mamba'"):
        config.stack_spec("mamba", 16, 3, options={"mamab": {}})


def test_mixers_that_mix_channels_need_no_perceptron(newcomer, monkeypatch):
    cls = config.find("mixers", "newcomer")
    assert config.stack_spec("newcomer", 10)["blocks"][0]["mlp"] is not None
    monkeypatch.setattr(cls, "mixes_channels", True, raising=False)
    assert config.stack_spec("newcomer", 10)["blocks"][0]["mlp"] is None
    assert config.stack_spec("newcomer", 10, mlp=True)["blocks"][0]["mlp"] is not None


def test_blocks_get_a_perceptron_where_the_published_block_has_one():
    alone = {
        kind for kind in config.kinds("mixers") if config.stack_spec(kind, 16)["blocks"][0]["mlp"] is None
    }
    with_gate = {"s4d", "lru", "long_conv", "s4", "s5", "dss", "gss", "lssl", "liquid_s4", "sgconv"}
    others = {"channel_scan", "chimera", "conv_lstm", "conv_s5", "mamba", "mamba2"}
    assert alone == with_gate | others | {"mixture_of_mamba", "mlp", "mlstm", "moe", "space_time", "stnn"}


def test_the_backbones_that_are_mixers_are_those_listed():
    found = {kind for kind in config.kinds("backbones") if issubclass(config.find("backbones", kind), Mixer)}
    assert found == set(MIXERS)
    assert all(issubclass(config.find("mixers", kind), Mixer) for kind in MIXERS)


def test_a_layer_that_reads_both_ways():
    assert config.parse_pattern("bi-s4dx2+bi-gru") == ("bi-s4d", "bi-s4d", "bi-gru")
    spec = config.stack_spec("bi-s4d+bi-min_gru", 16, options={"s4d": {"d_state": 8}})
    first, second = (block["mixer"] for block in spec["blocks"])
    one = {"kind": "s4d", "d_model": 16, "d_state": 8, "gated": False}
    two = {"kind": "bidirectional", "ahead": one, "back": one}
    assert first == {**two, "convention": "offset", "gated": True}
    assert (second["convention"], second["gated"]) == ("shared", False)
    assert [block["mlp"] is None for block in spec["blocks"]] == [True, False]
    stack = config.build(spec, "backbones")
    assert not stack.causal
    assert stack(torch.randn(2, 5, 16))[0].shape == (2, 5, 16)
    with pytest.raises(ValueError, match=r"there is no mixer 's4q'.*did you mean 's4"):
        config.parse_pattern("bi-s4q")


@pytest.mark.parametrize("kind", ["min_gru", "mamba", "attention", "s4d"])
@pytest.mark.parametrize("wanted", [50_000, 1_000_000])
def test_widths_match_a_parameter_count(kind, wanted):
    def make(width: int) -> dict:
        return language(kind, width, 3)

    width = config.match_width(make, wanted)
    found = abs(config.count_parameters(make(width)) - wanted)
    assert found / wanted < 0.3
    for other in (width - 8, width + 8):
        try:
            assert abs(config.count_parameters(make(other)) - wanted) >= found
        except ValueError:
            continue


def test_counting_is_exact_leaves_the_random_state_and_knows_tables():
    spec = language("mamba", 16)
    before = torch.get_rng_state()
    found = config.count_parameters(spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert found == sum(p.numel() for p in config.build(spec).parameters())
    assert config.count_parameters(spec, embeddings=False) == found - 32 * 16


def test_every_mixer_can_be_counted_on_the_meta_device():
    for kind in config.kinds("mixers"):
        # Some run over a grid, whose sizes have no default.
        spec = {"kind": kind, "d_model": 32, **config.with_sizes(kind, None, [2, 2]).get(kind, {})}
        with torch.device("meta"):
            built = config.build(spec, "mixers")
        assert sum(p.numel() for p in built.parameters()) == sum(
            p.numel() for p in config.build(spec, "mixers").parameters()
        )


def test_widths_keep_to_what_the_constructors_ask_for(newcomer):
    assert config.match_width(lambda w: language("newcomer", w, 2), 20_000) % 40 == 0


def test_a_size_that_no_width_gives_is_told():
    with pytest.raises(ValueError, match="no width gives 100 parameters"):
        config.match_width(lambda w: language("min_gru", w, 2), 100)


def test_a_spec_that_is_wrong_at_every_width_is_told():
    with pytest.raises(ValueError, match="did you mean 'backbone'"):
        config.match_width(lambda w: {"kind": "language", "vocab_size": 3, "backbon": {}}, 1000)


def recipe(**given) -> config.Recipe:
    return config.Recipe(
        **{
            "name": "small-hybrid",
            "title": "A small hybrid",
            "family": "matrix state",
            "citation": "@article{a, title={b}}",
            "model": {
                "pattern": "mamba2x3+attention",
                "depth": 8,
                "d_model": 64,
                "options": {"mamba2": {"d_state": 8}},
            },
            "training": {"lr": 1e-3},
            "claims": [{"task": "t", "metric": "perplexity", "value": 3.0, "source": "table 1"}],
            **given,
        }
    )


def test_recipes_are_data_and_make_stacks():
    made = recipe()
    assert config.Recipe.model_validate_json(made.model_dump_json()) == made
    spec = made.model.stack(d_model=32, depth=4)
    assert [b["mixer"]["kind"] for b in spec["blocks"]] == ["mamba2"] * 3 + ["attention"]
    assert spec["blocks"][0]["mixer"]["d_model"] == 32
    assert len(made.model.stack()["blocks"]) == 8


@pytest.mark.parametrize(
    "given", [{"name": "Has Space"}, {"citation": ""}, {"clams": []}, {"model": {"pattern": "x"}}]
)
def test_recipes_refuse_mistakes(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        recipe(**given)


def test_a_pattern_may_name_the_backbone_that_its_stacks_go_into():
    assert config.split_shape("hiss: s4d : mamba") == ("hiss", ("s4d", "mamba"))
    assert config.split_shape("mamba2x3+attention") == (None, ("mamba2x3+attention",))
    assert config.pattern_layers("hiss:s4d:mamba+gru", 3) == ("mamba", "gru", "mamba")
    assert config.pattern_layers("mamba2x3+attention", 2) == ("mamba2", "mamba2", "mamba2", "attention")
    assert config.pattern_kinds("hiss:s4d:mamba+s4d") == ("s4d", "mamba")
    spec = config.stack_spec("hiss:s4d:mamba", 16, 2, options={"hiss": {"chunk": 4}, "s4d": {"d_state": 8}})
    assert (spec["kind"], spec["chunk"]) == ("hiss", 4)
    assert [block["mixer"]["kind"] for block in spec["low"]["blocks"]] == ["s4d", "s4d"]
    assert spec["low"]["blocks"][0]["mixer"]["d_state"] == 8
    assert [block["mixer"]["kind"] for block in spec["high"]["blocks"]] == ["mamba", "mamba"]

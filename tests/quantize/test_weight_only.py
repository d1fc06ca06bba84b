"""Rounding the weights of any model: what is rounded, what it is worth, and files of it."""

import copy
import weakref

import pytest
import torch
from torch import nn

from hippodrome.analyze.cost import active_parameters, parameter_count, weight_bytes_read
from hippodrome.config import build, choices, find, stack_spec
from hippodrome.generate.decoder import Decoder
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.quantized import KINDS, Rounded, replace, stand_in
from hippodrome.quantize.weight_only import bytes_of, weight_only
from hippodrome.shapes import TokenBatch
from hippodrome.testing.ops import close
from hippodrome.train import weights


def in_full(model):
    """The same model with every weight replaced by what its int8 form stands for, and nothing else."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if type(module) in KINDS and not (isinstance(module, nn.Linear) and module.weight.shape[-1] < 16):
            wide = module.weight.detach().float()
            scale = wide.abs().amax(-1, keepdim=True) / 127
            rounded = torch.where(scale > 0, torch.round(wide / scale.clamp(min=1e-30)) * scale, wide)
            module.weight.data = rounded.to(module.weight.dtype)
    return twin


def language(vocab=40, d=32, depth=2, tie=True):
    backbone = stack_spec("mamba", d, depth, mlp=False)
    return build({"kind": "language", "vocab_size": vocab, "backbone": backbone, "tie": tie}).eval()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_language_model_is_the_one_with_rounded_weights(tie, dtype):
    model = language(tie=tie).to(dtype)
    expected, tolerance = in_full(model), 1e-5 if dtype == torch.float32 else 3e-2
    found = weight_only(model)
    assert len(found) == 2 * 3 + 2 - tie  # dt_proj has 2 inputs and stays
    tokens = torch.randint(40, (3, 30))
    with torch.no_grad():
        logits, _ = model(tokens)
        assert logits.dtype == dtype
        close(logits, expected(tokens)[0], tolerance, "forward")
        state = model.init_state(3)
        steps = [model.advance_(ids, state) for ids in tokens.T]
        close(torch.stack(steps, 1), expected(tokens)[0], 2 * tolerance, "one by one")
        close(model.last(tokens)[0], expected.last(tokens)[0], tolerance, "last")
        batch = TokenBatch(tokens[:, :-1], tokens[:, 1:])
        for name, mean in model.metrics(batch).items():
            if name != "accuracy":
                close(mean.total, expected.metrics(batch)[name].total, tolerance, name)


def test_a_loss_reaches_what_is_not_rounded():
    model = language()
    expected = in_full(model)
    weight_only(model)
    tokens = torch.randint(40, (2, 12))
    batch = TokenBatch(tokens[:, :-1], tokens[:, 1:])
    losses = model.loss(batch), expected.loss(batch)
    close(losses[0].detach(), losses[1].detach(), 1e-5, "loss")
    for loss in losses:
        loss.backward()
    wanted = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        close(parameter.grad, wanted[name].grad, 1e-4, name)


WITH_MAPS = [
    kind
    for kind in choices("mixers")
    if any(type(m) in KINDS and m.weight.shape[-1] >= 16 for m in find("mixers", kind).example().modules())
]


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_every_mixer_bears_it(kind):
    mixer = find("mixers", kind).example().float().eval()
    expected = in_full(mixer)
    weight_only(mixer)
    x = torch.randn(2, 12, mixer.d_model)  # grids too
    with torch.no_grad():
        y, wanted = mixer(x)[0], expected(x)[0]
        close(y, wanted, 1e-4, "forward")
        if mixer.causal:
            close(mixer.step(x[:, 0], mixer.init_state(2))[0], wanted[:, 0], 1e-4, "step")


def test_what_it_tells():
    model = language(vocab=300)
    whole, full = bytes_of(model), {n: p.clone() for n, p in model.named_parameters()}
    found = weight_only(model)
    assert found[0].name == "embedding"
    assert bytes_of(model) == whole - sum(r.before - r.after for r in found)
    for r in found:
        w = full[f"{r.name}.weight"].double()
        q = model.get_submodule(r.name).weight.double()
        assert r.shape == tuple(w.shape)
        assert r.before == 4 * w.numel()
        assert r.after == w.numel() + 4 * w.shape[0]
        assert r.error == pytest.approx(((w - q).norm() / w.norm()).item(), rel=1e-4)
        assert r.error < 0.01
    assert not any("conv" in r.name or "norm" in r.name for r in found)


def test_layers_that_stay():
    model = language()
    found = weight_only(model, keep=["embedding", "blocks.0.mixer.*_proj"])
    assert [r.name for r in found] == [
        "backbone.blocks.1.mixer." + n for n in ("in_proj", "x_proj", "out_proj")
    ]
    assert type(model.embedding) is nn.Embedding
    moe = find("mixers", "moe").example()
    names = [r.name for r in weight_only(moe)]
    assert names
    assert not any("router" in name for name in names)


def test_a_map_in_several_places_is_rounded_once_and_written_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = Projection(20, 20)
            self.two = self.one

    model = Twice()
    assert [r.name for r in weight_only(model)] == ["one"]
    assert model.one is model.two
    (tmp_path / "config.json").write_text("{}")
    weights.write(tmp_path / "a.safetensors", model.state_dict(), weights.aliases(model))
    again = Twice()
    weights.load(again, tmp_path / "a.safetensors")
    assert again.one is again.two
    assert torch.equal(again.one.int8, model.one.int8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_hold_every_bit_and_scales_stay_float32(tmp_path, dtype):
    model = language(tie=False).to(dtype)
    weight_only(model)
    (tmp_path / "config.json").write_text("{}")
    weights.write(tmp_path / "m.safetensors", model.state_dict(), weights.aliases(model))
    again = language(tie=False)
    weights.load(again, tmp_path / "m.safetensors", dtype)
    assert set(again.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    tokens = torch.randint(40, (2, 9))
    with torch.no_grad():
        assert torch.equal(again(tokens)[0], model(tokens)[0])
    assert again.to(torch.bfloat16).embedding.scale.dtype == torch.float32
    assert torch.equal(again.embedding.scale, model.embedding.scale)


def test_files_that_do_not_fit_are_refused_by_name(tmp_path):
    model = language()
    weight_only(model)
    (tmp_path / "config.json").write_text("{}")
    good = model.state_dict()
    for change, sentence in (
        ({"embedding.int8": good["embedding.int8"][:-1]}, "embedding.int8 has shape"),
        ({"embedding.int8": good["embedding.int8"].float()}, "embedding.int8 is torch.float32"),
        ({"embedding.scale_bits": None}, "embedding.scale_bits is missing"),
        ({"backbone.norm.int8": torch.zeros(3, 3, dtype=torch.int8)}, "has no form in int8"),
        ({"nowhere.int8": torch.zeros(3, 3, dtype=torch.int8)}, "nowhere.int8 is not in the model"),
    ):
        file = {k: v for k, v in {**good, **change}.items() if v is not None}
        weights.write(tmp_path / "m.safetensors", file, set())
        with pytest.raises(ValueError, match=sentence):
            weights.load(language(), tmp_path / "m.safetensors")


def test_a_model_that_is_refused_stays_as_it_is():
    model = language(tie=False)
    with torch.no_grad():
        model.head.weight[3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"head: a weight is infinite or not a number"):
        weight_only(model)
    assert not any(isinstance(module, Rounded) for module in model.modules())


def test_weights_in_full_go_as_they_are_rounded(monkeypatch):
    model, there = language(), []
    full = [weakref.ref(module.weight) for module in model.modules() if type(module) in KINDS]

    def counted(*arguments):
        there.append(sum(weight() is not None for weight in full))
        return replace(*arguments)

    monkeypatch.setattr("hippodrome.quantize.weight_only.replace", counted)
    weight_only(model)
    assert there[0] == len(full)
    assert there == sorted(there, reverse=True)
    assert there[-1] < len(full) - len(there) + 3


def test_what_is_refused():
    with pytest.raises(ValueError, match="rounded to int8; got 'int4'"):
        weight_only(language(), dtype="int4")
    with pytest.raises(ValueError, match=r"called 'haed'; there are .*in_proj"):
        weight_only(language(), keep=["haed"])
    model = language()
    weight_only(model)
    with pytest.raises(ValueError, match=r"int8 already \(embedding and 6 more\)"):
        weight_only(model)
    with pytest.raises(ValueError, match="no weights that are rounded"):
        weight_only(RMSNorm(30))
    model = language()
    model.backbone.blocks[1].mixer.in_proj.weight.data[3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"blocks.1.mixer.in_proj: a weight is infinite or not a number"):
        weight_only(model)


def test_room_is_made_where_a_file_has_int8_alone():
    model = language()
    stand_in(model, ["embedding.int8", "embedding.scale_bits", "backbone.blocks.0.mixer.in_proj.weight"])
    assert [n for n, m in model.named_modules() if isinstance(m, Rounded)] == ["embedding"]


@pytest.mark.parametrize("tie", [True, False])
def test_what_a_token_reads_is_counted_in_int8(tie):
    model = language(tie=tie)
    parameters, read = parameter_count(model), weight_bytes_read(model)
    found = weight_only(model)
    assert parameter_count(model) == parameters
    saved = sum(r.before - r.after for r in found if tie or r.name != "embedding")
    # Of a table that is only looked up, one row is read.
    saved += 0 if tie else 4 * 32 - (32 + 4)
    assert weight_bytes_read(model) == read - saved


def test_experts_that_a_token_passes_by_are_counted_in_int8():
    moe = find("mixers", "moe").example()
    idle, parameters = active_parameters(moe), parameter_count(moe)
    weight_only(moe)
    assert active_parameters(moe) == idle
    assert parameter_count(moe) == parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_of_int8_weights_are_recorded_and_replayed(dtype):
    model = language(tie=False).to(dtype)
    weight_only(model)
    ids = torch.randint(40, (20, 2))
    decoder = Decoder(model, model.init_state(2))
    with torch.no_grad():
        found = torch.stack([decoder.next(x).clone() for x in ids])
        state = model.init_state(2)
        expected = torch.stack([model.advance_(x, state) for x in ids])
    assert decoder.uncaptured is None
    close(found, expected, 1e-5 if dtype == torch.float32 else 3e-2, "replayed")


def test_a_new_state_forms_no_weight_of_a_rounded_map(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(stack_spec("attention+retention", 32, 2), "backbones").bfloat16()
    kinds = [x.dtype for state in model.init_state(2, 4) for x in state]
    weight_only(model)
    monkeypatch.setattr(Rounded, "weight", property(lambda self: pytest.fail("a weight was formed")))
    assert [x.dtype for state in model.init_state(2, 4) for x in state] == kinds

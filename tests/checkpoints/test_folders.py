"""Folders that are broken, tampered with, or of something else: refused in a sentence, and nothing runs."""

import ctypes
import gc
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from hippodrome import checkpoints, config, runs
from hippodrome.checkpoints import writing
from hippodrome.models.language import LanguageModel
from hippodrome.train.settings import TrainSettings

SPEC = {
    "kind": "language",
    "vocab_size": 12,
    "tie": False,
    "bytes_per_token": None,
    "backbone": config.stack_spec("mamba2", 16, 2, options={"mamba2": {"d_state": 4, "head_dim": 8}}),
}


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return config.build(SPEC)


@pytest.fixture
def folder(model: LanguageModel, tmp_path: Path) -> Path:
    place = tmp_path / "there"
    writing.export(model, writing.origin_of(SPEC, "mamba2-hf", torch.float32), place)
    return place


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        checkpoints.open_model(folder)


def test_a_model_that_began_here_comes_back_the_same(model: LanguageModel, folder: Path) -> None:
    again = checkpoints.open_model(folder)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(again.model(ids)[0], model(ids)[0], rtol=0, atol=0)
    assert again.details["kind"] == "language"


def test_a_tied_head_is_written_once_and_told(tmp_path: Path) -> None:
    spec = {**SPEC, "tie": True}
    origin = writing.origin_of(spec, "mamba2-hf", torch.float32)
    writing.export(config.build(spec), origin, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert checkpoints.open_model(tmp_path / "tied").model.head is None
    # A copy of the head in the file is fine; one that differs is not.
    path = tmp_path / "tied" / "model.safetensors"
    held = load_file(path)
    table = held["backbone.embeddings.weight"]
    save_file({**held, "lm_head.weight": table.clone()}, path)
    checkpoints.open_model(tmp_path / "tied")
    checkpoints.export(tmp_path / "tied", tmp_path / "again")
    assert "lm_head.weight" in load_file(tmp_path / "again" / "model.safetensors")
    save_file({**held, "lm_head.weight": table + 1}, path)
    refused(tmp_path / "tied", "ties lm_head.weight to backbone.embeddings.weight, and they differ")


def test_cut_off_and_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(folder, "damaged or cut off")
    path.write_bytes(b"\xff" * 8 + whole[8:])
    refused(folder, "damaged or cut off")
    path.write_bytes(b"")
    refused(folder, "damaged or cut off")
    path.unlink()
    refused(folder, "holds no weights")


def test_parts_that_do_not_fit_their_index(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "parts"
    checkpoints.export(folder, place, shard=3000)
    index = place / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    first = sorted(set(said["weight_map"].values()))[0]
    for change, sentence in (
        ({**said["weight_map"], "stranger": first}, "lacks stranger"),
        ({k: v for k, v in said["weight_map"].items() if "norm_f" not in k}, "does not name it"),
        ({k: "../" + v for k, v in said["weight_map"].items()}, "not a file beside it"),
        (dict.fromkeys(said["weight_map"], "gone.safetensors"), "lacks gone.safetensors"),
    ):
        index.write_text(json.dumps({**said, "weight_map": change}))
        refused(place, sentence)
    index.write_text("{")
    refused(place, "cannot be read")
    index.write_text(json.dumps(said))
    (place / first).unlink()
    refused(place, f"lacks {first}")


class Runs:
    """A pickle of this runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_pickle_runs(folder: Path, tmp_path: Path) -> None:
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    mark = tmp_path / "ran"
    for writes in (
        lambda: torch.save({**held, "evil": Runs(mark)}, path),
        lambda: path.write_bytes(pickle.dumps({"evil": Runs(mark)})),
    ):
        writes()
        refused(folder, "nothing else of a pickle is")
        assert not mark.exists()
    torch.save([1, 2], path)
    refused(folder, "other than tensors by their names")
    torch.save(held, path)
    assert checkpoints.open_model(folder).spec["vocab_size"] == 12
    torch.save(held, path, _use_new_zipfile_serialization=False)
    assert checkpoints.open_model(folder).spec["vocab_size"] == 12


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "llama"}, "checkpoint of llama, which is none of those"),
        ({"hidden_size": 17}, "num_heads times head_dim equal to expand times"),
        ({"hidden_size": None}, "has hidden_size; this one's has not"),
        ({"num_hidden_layers": 3}, r"layers\.2\.mixer\.\w+.* is missing"),
        ({"num_hidden_layers": 1}, "is not known in this layout"),
        ({"vocab_size": 16}, r"shape \(12, 16\), config.json asks for \(16, 16\)"),
        ({"hidden_act": "gelu"}, "hidden_act 'silu'"),
        ({"state_size": "large"}, "state_size is a whole number"),
        ({"time_step_limit": [0.0]}, "bounds of step sizes are two numbers"),
        ({"vocab_size": 10**14}, "no model of the sizes in its config.json can be made"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and the weights are 21 tensors"),
        ({"model_type": None, "d_model": 16, "n_layer": 2, "ssm_cfg": ["Mamba2"]}, "ssm_cfg is a table; got"),
    ],
)
def test_a_configuration_that_does_not_fit(folder: Path, change: dict[str, Any], sentence: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(folder, sentence)


def test_settings_within_settings_without_an_end(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mamba2", "a": ' + "[" * 10**5 + "]" * 10**5 + "}")
    refused(folder, "config.json cannot be read")
    assert not checkpoints.is_checkpoint(folder)


def test_the_whole_file_holds_where_an_older_index_lies_beside_it(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert checkpoints.open_model(folder).spec["vocab_size"] == 12


def test_whole_numbers_are_no_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    save_file({**held, "lm_head.weight": held["lm_head.weight"].to(torch.int8)}, path)
    refused(folder, "lm_head.weight holds int8, which is no weight in full")
    save_file({}, path)
    refused(folder, "the weights are 0 tensors")


def test_what_a_run_says_of_where_it_came_from_is_checked(folder: Path, tmp_path: Path) -> None:
    checkpoints.convert(folder, tmp_path / "run")
    path = tmp_path / "run" / "origin.json"
    said = json.loads(path.read_text())
    for text, sentence in (
        (path.read_text()[:40], "cannot be read"),
        (json.dumps({**said, "layout": "mamba2-fh"}), "no layout that is known.*did you mean 'mamba2-hf'"),
        (json.dumps({**said, "dtypes": {"lm_head.weight": "load"}}), "the type of each of its tensors"),
        (json.dumps({"layout": "mamba2-hf"}), "the type of each of its tensors"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            checkpoints.export(tmp_path / "run", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_another_type_of_the_weights_is_told_to_who_loads_them(folder: Path, tmp_path: Path) -> None:
    # transformers loads weights in what config.json says, whatever type they have.
    checkpoints.export(folder, tmp_path / "half", dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}


def memory(key: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only Linux tells so"
)
def test_loading_takes_the_weights_once_in_memory(tmp_path: Path) -> None:
    # A head as large as the table, last in the model: while it is read it is there twice.
    stack = config.stack_spec("mamba2", 128, 4, options={"mamba2": {"head_dim": 64, "expand": 32}})
    spec = {**SPEC, "vocab_size": 2**14, "backbone": stack}
    large = config.build(spec)
    for layout in ("mamba2-hf", "mamba2"):
        writing.export(large, writing.origin_of(spec, layout, torch.float32), tmp_path / layout)
    size = sum(p.nbytes for p in large.parameters())
    del large
    checkpoints.convert(tmp_path / "mamba2-hf", tmp_path / "run")
    for name in ("mamba2-hf", "mamba2", "run"):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else what was given back would be taken again and not be seen
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        before = memory("VmRSS")
        opened = checkpoints.open_model(tmp_path / name)
        # Some of it may lie in what other tests left: then less is seen, never more.
        assert 0.5 * size < memory("VmHWM") - before < 1.1 * size, name
        del opened


@torch.no_grad()
def test_a_run_of_any_mixer_in_half_precision_keeps_its_rates(tmp_path: Path) -> None:
    spec = {**SPEC, "backbone": config.stack_spec("liquid_s4+s4d+lru+gated_delta_net", 16)}
    model = config.build(spec).eval()
    made = runs.Run(model, config.validate(spec), None, {"kind": "language"}, tmp_path, TrainSettings(), None)
    runs.save(made, tmp_path / "run")
    half = checkpoints.open_model(tmp_path / "run", dtype="bfloat16").model
    full = dict(model.named_parameters())
    slow = [p for block in half.backbone.blocks for g in block.parameter_groups() if g.max_lr for p in g[0]]
    assert len(slow) > 8
    for name, p in half.named_parameters():
        if any(p is one for one in slow):
            assert torch.equal(p, full[name]), name
        else:
            assert p.dtype == torch.bfloat16, name
    ids = torch.arange(12)[None]
    got, expected = half(ids)[0].float(), model(ids)[0]
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()


def test_the_tokenizer_of_another_model(folder: Path, tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({f"word{i}": i for i in range(20)}, "word0")).save(
        str(folder / "tokenizer.json")
    )
    refused(folder, "tokenizer of another model")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(folder, "is no tokenizer that can be read")
    (folder / "tokenizer.json").unlink()
    assert checkpoints.open_model(folder).tokenizer is None
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")).save(str(tmp_path / "tokenizer.json"))
    assert checkpoints.open_model(folder, tokenizer=tmp_path / "tokenizer.json").tokenizer is not None


def test_a_converted_run_keeps_what_it_needs_and_is_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")).save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [1]}')
    run = checkpoints.convert(folder, tmp_path / "run", dtype="bfloat16")
    assert run.ends == (1,)
    assert next(run.model.parameters()).dtype == torch.bfloat16
    assert runs.load(tmp_path / "run").spec == run.spec
    with pytest.raises(ValueError, match="is there already"):
        checkpoints.convert(folder, tmp_path / "run")
    with pytest.raises(ValueError, match=r"'\.' names no folder that can be made anew"):
        checkpoints.convert(folder, Path())
    with pytest.raises(ValueError, match="a run folder already"):
        checkpoints.convert(tmp_path / "run", tmp_path / "again")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.convert(folder, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "there"]


def test_a_layout_that_cannot_say_what_the_model_is() -> None:
    hybrid = {**SPEC, "backbone": config.stack_spec("mamba2+attention", 16, 2)}
    with pytest.raises(ValueError, match="cannot say what this model is"):
        writing.origin_of(hybrid, "mamba2-hf", torch.float32)
    with pytest.raises(ValueError, match="no layout 'mamba2-fh'; did you mean"):
        writing.origin_of(SPEC, "mamba2-fh", torch.float32)

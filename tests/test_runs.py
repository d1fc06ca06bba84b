"""Run folders: what is in them, what they refuse, and that what comes out is what went in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import nn
from torch.utils.data import Dataset

from hippodrome import config, runs
from hippodrome.data.base import Task
from hippodrome.models.language import LanguageModel
from hippodrome.shapes import TokenBatch
from hippodrome.train import weights
from hippodrome.train.settings import TrainSettings


class Repeats(Dataset):
    """Random tokens, each twice."""

    def __init__(self, rows: int, seed: int) -> None:
        drawn = torch.randint(0, 16, (rows, 6), generator=torch.Generator().manual_seed(seed))
        self.tokens = drawn.repeat_interleave(2, 1)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index]


def collate(items: list) -> TokenBatch:
    tokens = torch.stack(items)
    return TokenBatch(tokens[:, :-1].clone(), tokens[:, 1:].clone())


def task(tokenizer: Tokenizer | None = None) -> Task:
    parts = (Repeats(40, 1), Repeats(13, 2), Repeats(17, 3))
    details = {"source": Path("somewhere"), "count": torch.tensor(3), "sizes": {"train": 40}}
    return Task("language", "repeats", *parts, collate, {"vocab_size": 16}, tokenizer, details, dict)


def spec(width: int = 8) -> dict:
    return {"backbone": config.stack_spec("min_gru", width, 2, dropout=0.1)}


def settings(**given) -> TrainSettings:
    return TrainSettings(**{"budget": "8steps", "batch_size": 8, "device": "cpu", "validations": 2, **given})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    runs.train(spec(), task(Tokenizer(models.WordLevel({"a": 0}))), settings(), folder, command="a command")
    return folder


def copy(folder: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, target / "copy"))


def test_the_folder_holds_what_it_should(finished):
    assert sorted(p.name for p in finished.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
        "tokenizer.json",
    ]
    head = json.loads((finished / "config.json").read_text())
    assert head["format"] == runs.FORMAT
    assert head["command"] == "a command"
    assert head["spec"] == config.validate({"kind": "language", "vocab_size": 16, **spec()})
    assert head["task"] == {
        "kind": "language",
        "name": "repeats",
        "source": "somewhere",
        "count": 3,
        "sizes": {"train": 40},
    }
    assert TrainSettings.model_validate(head["settings"]) == settings()
    assert {"python", "torch", "hippodrome"} <= set(head["versions"])


def test_all_files_have_the_same_permissions(finished):
    assert len({p.stat().st_mode for p in finished.iterdir() if p.is_file()}) == 1


def test_what_is_loaded_evaluates_as_what_was_trained(finished):
    run = runs.load(finished)
    assert not run.model.training
    assert run.result is not None
    assert run.result.valid == pytest.approx(runs.evaluate(run, task(), "valid"), rel=1e-6)
    assert run.result.parameters == sum(p.numel() for p in run.model.parameters())
    assert run.tokenizer is not None
    assert run.details["name"] == "repeats"
    once, twice = runs.evaluate(run, task(), batch_size=3), runs.evaluate(run, task(), batch_size=17)
    assert once == pytest.approx(twice, rel=1e-5)


def test_a_run_that_ended_is_refused_returned_or_overwritten(finished, tmp_path):
    folder = copy(finished, tmp_path)
    with pytest.raises(ValueError, match=r"holds a run that is finished\. Resume it, overwrite it"):
        runs.train(spec(), task(), settings(), folder)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    again = runs.train(spec(), task(), settings(), folder, resume=True)
    assert again == runs.read_result(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    (folder / "notes.txt").write_text("mine")
    fresh = runs.train(spec(16), task(), settings(budget="4steps"), folder, overwrite=True)
    assert fresh.steps == 4
    assert (folder / "notes.txt").exists()
    assert not (folder / "tokenizer.json").exists()


def test_a_larger_budget_goes_on(finished, tmp_path):
    folder = copy(finished, tmp_path)
    more = runs.train(spec(), task(), settings(budget="12steps"), folder, resume=True)
    assert more.steps == 12
    assert runs.load(folder).result == more


def test_a_run_of_another_model_is_not_resumed(finished, tmp_path):
    folder = copy(finished, tmp_path)
    with pytest.raises(ValueError, match=r"blocks.0.mixer.d_model: there 8, here 16"):
        runs.train(spec(16), task(), settings(), folder, resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for given in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ValueError, match="is not empty and is no run folder"):
            runs.train(spec(), task(), settings(), tmp_path, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_folders_place_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        runs.train(spec(), task(), settings(), tmp_path / "run")


def test_a_spec_that_is_wrong_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'backbone'"):
        runs.train({"backbon": {}}, task(), settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_stopped_says_so_and_resumes_to_the_same_end(finished, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if event["event"] == "validation":
            raise Stop

    with pytest.raises(Stop):
        runs.train(spec(), task(), settings(checkpoint_steps=1), tmp_path / "run", on_event=stop)
    with pytest.raises(ValueError, match="the run has not ended; resume it"):
        runs.load(tmp_path / "run")
    with pytest.raises(ValueError, match="unfinished"):
        runs.train(spec(), task(), settings(), tmp_path / "run")
    runs.train(spec(), task(), settings(), tmp_path / "run", resume=True)
    first, second = (load_file(f / "model.safetensors") for f in (finished, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_seed_decides_the_first_weights_and_leaves_the_callers_state(tmp_path):
    def trained(seed: int, name: str) -> torch.Tensor:
        runs.train(spec(), task(), settings(seed=seed, budget="1step"), tmp_path / name)
        return load_file(tmp_path / name / "model.safetensors")["embedding.weight"]

    before = torch.get_rng_state()
    first = trained(1, "a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(first, trained(1, "b"))
    assert not torch.equal(first, trained(2, "c"))


def test_a_run_that_diverged_says_so(tmp_path, monkeypatch):
    plain = LanguageModel.loss
    monkeypatch.setattr(LanguageModel, "loss", lambda self, batch: plain(self, batch) * float("nan"))
    result = runs.train(spec(), task(), settings(), tmp_path / "run")
    assert result.status == "diverged"
    with pytest.raises(ValueError, match="the run diverged: the loss was not finite"):
        runs.load(tmp_path / "run")


def test_a_newer_format_is_refused_in_a_sentence(finished, tmp_path):
    folder = copy(finished, tmp_path)
    head = json.loads((folder / "config.json").read_text())
    head["format"], head["versions"]["hippodrome"] = runs.FORMAT + 1, "99.0"
    (folder / "config.json").write_text(json.dumps(head))
    with pytest.raises(ValueError, match=r"run format 2, and this program reads up to 1.*hippodrome 99.0"):
        runs.load(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "it has no config.json"),
        ("{", "cannot be read"),
        ("[]", "names no format"),
        ("{}", "names no format"),
    ],
)
def test_what_is_no_run_folder_is_told(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        runs.load(tmp_path / "nowhere")


def test_weights_that_do_not_fit_are_refused_by_name(finished, tmp_path):
    folder = copy(finished, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["embedding.weight"]
    tensors["strange"] = torch.zeros(1)
    tensors["backbone.norm.weight"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit the model") as error:
        runs.load(folder)
    assert "embedding.weight is missing" in str(error.value)
    assert "strange is not in the model" in str(error.value)
    assert "backbone.norm.weight has shape (3,), the model's is (8,)" in str(error.value)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        runs.load(folder)


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    model, path = Tied(), tmp_path / "model.safetensors"
    (tmp_path / "config.json").touch()
    copied = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights.write(path, copied, weights.aliases(model))
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["a.weight"]
    other = Tied()
    weights.load(other, path)
    assert torch.equal(other.b.weight, model.a.weight)
    assert other.a.weight is other.b.weight


def test_training_starts_from_given_weights_and_goes_on_from_them_alone(finished, tmp_path):
    held = {n: t for n, t in load_file(finished / "model.safetensors").items() if n.startswith("backbone.")}
    still = settings(lr=1e-30, weight_decay=0.0)  # far below what a float32 weight can take in
    runs.train(spec(), task(), still, tmp_path / "run", start_from=held)
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in held.items())
    drawn = config.build(json.loads((tmp_path / "run" / "config.json").read_text())["spec"]).state_dict()
    assert set(after) - set(held) == {"embedding.weight"}
    assert drawn["embedding.weight"].shape == after["embedding.weight"].shape
    more = settings(budget="12steps", lr=1e-30, weight_decay=0.0)
    assert runs.train(spec(), task(), more, tmp_path / "run", resume=True, start_from=held).steps == 12
    other = {name: tensor + 1 for name, tensor in held.items()}
    for wrong in (other, None):
        with pytest.raises(ValueError, match="began with other weights"):
            runs.train(spec(), task(), more, tmp_path / "run", resume=True, start_from=wrong)


def test_weights_that_do_not_fit_are_refused_by_name_before_there_is_a_folder(tmp_path):
    given = {"backbone.norm.weight": torch.zeros(3), "nothing": torch.zeros(1)}
    with pytest.raises(
        ValueError, match=r"nothing is not in the model; backbone.norm.weight has shape \(3,\)"
    ):
        runs.train(spec(), task(), settings(), tmp_path / "run", start_from=given)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_a_full_disk_leaves_the_file_that_was_there(finished, tmp_path):
    folder = copy(finished, tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    program = (
        "import resource, sys, torch; from pathlib import Path; from hippodrome.train import weights\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "weights.write(Path(sys.argv[1]), {'w': torch.zeros(100_000)}, set())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "model.safetensors")], capture_output=True, text=True
    )
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("OSError:")
    assert "could not be written" in sentence
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))

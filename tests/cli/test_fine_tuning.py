"""From a run or a checkpoint to a fine-tuned run by the command line: tokens, template and weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from hippodrome import checkpoints, runs
from hippodrome.cli import app
from hippodrome.text.folder import FILES, read
from hippodrome.train import low_rank

QUICK = [
    *("--budget", "3steps", "--device", "cpu", "--batch-size", "2"),
    *("-s", "data.length=32", "-s", "training.validations=1"),
]


def call(*words: str | Path) -> str:
    """A verb that succeeds; what it printed."""
    answer = CliRunner().invoke(app, [str(word) for word in words])
    assert answer.exit_code == 0, answer.output
    return answer.output


def refusal(*words: str | Path) -> str:
    """What a verb that is refused says, on one line."""
    answer = CliRunner().invoke(app, [str(word) for word in words])
    assert answer.exit_code == 2, answer.output
    return " ".join(answer.output.split())


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    turns = [
        [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"It is {i}."}]
        for i in range(12)
    ]
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    return path


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on text, as bytes."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "t.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 60)
    small = ["--model", "mamba2", "--width", "16", "--depth", "2", "-s", "model.options.mamba2.head_dim=8"]
    call("train", folder / "t.txt", "--out", folder / "run", *small, *QUICK)
    return folder / "run"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers wrote, with more rows in its table than its tokenizer has tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        chat_template=(
            "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
        ),
    )
    config = MambaConfig(
        vocab_size=264, hidden_size=16, state_size=4, num_hidden_layers=2, eos_token_id=256, time_step_rank=2
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    MambaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_run_goes_on_with_chat_and_leaves_the_layout_of_it(
    begun: Path, talks: Path, tmp_path: Path
) -> None:
    said = call("train", talks, "--start-from", begun, "--out", tmp_path / "run", *QUICK)
    assert "chat template" in said
    run = runs.load(tmp_path / "run")
    assert run.spec["backbone"] == runs.load(begun).spec["backbone"]
    assert run.settings.lr == 3e-4
    assert run.ends == (0,)
    assert run.template is not None
    assert run.template.render([{"role": "user", "content": "Hi"}]) == "user:\nHi\0\nassistant:\n"
    before, after = (load_file(folder / "model.safetensors") for folder in (begun, tmp_path / "run"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if "weight" in name)
    call("evaluate", tmp_path / "run")
    call("generate", tmp_path / "run", "--prompt", "user:\nHi", "--tokens", "4")


def test_corrections_alone_are_trained_merged_and_resumed(begun: Path, talks: Path, tmp_path: Path) -> None:
    asked = ["--start-from", begun, "--lora", "2", "-s", "lora.alpha=4", "-s", "lora.on=in_proj,out_proj"]
    call("train", talks, "--out", tmp_path / "run", *asked, *QUICK)
    run = runs.load(tmp_path / "run")
    assert run.settings.lora is not None
    assert run.settings.lr == 1e-3
    before, after = (load_file(folder / "model.safetensors") for folder in (begun, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    maps = {f"backbone.blocks.{i}.mixer.{p}_proj.weight" for i in (0, 1) for p in ("in", "out")}
    # The end of a turn is a token that this model has never seen, so its table learns too.
    assert changed == {*maps, "embedding.weight"}
    assert run.settings.lora.also == ("embedding",)
    model = runs.load(begun).model
    low_rank.apply(model, tmp_path / "run" / low_rank.FILE)
    assert all(
        torch.equal(after[name], tensor) for name, tensor in model.state_dict().items() if name in after
    )
    refused = refusal(
        "train", talks, "--out", tmp_path / "run", *asked[:2], "--resume", *QUICK, "--budget", "5steps"
    )
    assert "resume with the same --lora" in refused
    call("train", talks, "--out", tmp_path / "run", *asked, "--resume", *QUICK, "--budget", "5steps")
    assert runs.load(tmp_path / "run").result.steps == 5  # type: ignore[union-attr]
    call("train", talks, "--out", tmp_path / "run", "--start-from", begun, "--overwrite", *QUICK)
    assert not (tmp_path / "run" / low_rank.FILE).exists()


def test_a_checkpoint_goes_on_as_it_is_and_goes_back(checkpoint: Path, talks: Path, tmp_path: Path) -> None:
    """Padded rows stay, the tokenizer files come along, and the layout it came in reads what was learned."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    call("train", talks, "--start-from", checkpoint, "--out", tmp_path / "run", "--lora", "2", *QUICK)
    run = runs.load(tmp_path / "run")
    assert run.spec["vocab_size"] == 264
    assert len(run.spec["bytes_per_token"]) == 264
    assert run.details["template"] == "the tokenizer's"
    assert run.settings.lora.also == ()  # type: ignore[union-attr]
    ours, theirs = read(tmp_path / "run", 264), read(checkpoint, 264)
    assert ours is not None
    assert theirs is not None
    assert (ours.ends, ours.bos, ours.pad) == (theirs.ends, theirs.bos, theirs.pad)
    assert {name for name in FILES if (checkpoint / name).exists()} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    call("convert", tmp_path / "run", "--to", "origin", "--out", tmp_path / "back")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back", torch_dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(tmp_path / "back")
    text = words.apply_chat_template([{"role": "user", "content": "say 3"}], tokenize=False)
    ids = torch.tensor([words(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        expected = again(ids, use_cache=False).logits
        found, _ = run.model(ids)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    first = checkpoints.open_model(checkpoint).model(ids)[0]
    assert (found - first).abs().max() > 1e-4 * expected.abs().max()


def test_a_text_is_read_with_the_tokens_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("Once upon a time.;" * 40)
    call(
        "train", text, "--start-from", checkpoint, "--out", tmp_path / "run", *QUICK, "-s", "data.separator=;"
    )
    run = runs.load(tmp_path / "run")
    assert run.details["documents"]["train"] == 36
    assert run.details["tokenizer"] == "257 tokens"
    assert run.ends == (256,)


def test_what_cannot_be_fine_tuned_is_refused(
    begun: Path, checkpoint: Path, talks: Path, tmp_path: Path
) -> None:
    assert "name it with --start-from" in refusal("train", talks, "--lora", "2", *QUICK)
    assert "holds what to start from" in refusal(
        "train", talks, "--start-from", begun, "--out", begun, *QUICK
    )
    assert "other tokens than this data makes" in refusal(
        "train",
        talks,
        "--start-from",
        checkpoint,
        "--out",
        tmp_path / "a",
        "-s",
        "data.tokenizer=bytes",
        *QUICK,
    )
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((checkpoint / name).read_bytes())
    assert "has no tokenizer" in refusal(
        "train", talks, "--start-from", bare, "--out", tmp_path / "b", *QUICK
    )
    given = ["-s", f"data.tokenizer={checkpoint}"]
    call("train", talks, "--start-from", bare, "--out", tmp_path / "c", *given, *QUICK)
    assert read(tmp_path / "c").ends == (256,)  # type: ignore[union-attr]
    assert "no linear map of the model is called 'q_proj'" in refusal(
        "train",
        talks,
        "--start-from",
        begun,
        "--out",
        tmp_path / "d",
        "--lora",
        "2",
        "-s",
        "lora.on=q_proj",
        *QUICK,
    )
    small = tmp_path / "small"
    call("quantize", begun, "--out", small)
    assert "in int8, which are trained no further" in refusal("train", talks, "--start-from", small)
    assert not (tmp_path / "d").exists(), "what cannot be trained leaves no folder"
    assert "leave --depth out" in refusal("train", talks, "--start-from", begun, "--depth", "3", *QUICK)


def test_what_a_new_task_adds_trains_beside_corrections(begun: Path, tmp_path: Path) -> None:
    """A head that was drawn by chance and held fast would be learned around."""
    data = tmp_path / "rows.ts"
    head = "@problemName Rows\n@timeStamps false\n@univariate true\n@equalLength true\n@seriesLength 6\n"
    rows = [f"{i % 2},{i},2,3,{i},5:{'ab'[i % 2]}\n" for i in range(12)]
    data.write_text(head + "@classLabel true a b\n@data\n" + "".join(rows))
    given = ["--start-from", begun, "--lora", "2", *QUICK[:6], "-s", "training.validations=1"]
    call("train", data, "--out", tmp_path / "run", *given)
    run = runs.load(tmp_path / "run")
    assert run.details["kind"] == "classification"
    assert run.settings.lora is not None
    assert set(run.settings.lora.also) == {"input", "head"}
    learned = load_file(tmp_path / "run" / low_rank.FILE)
    assert {name.split(".")[0] for name in learned} == {"backbone", "input", "head"}
    assert all("in_proj" in name or "out_proj" in name for name in learned if name.startswith("backbone"))

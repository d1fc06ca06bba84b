"""Tokenizer folders against the transformers package, and folders that are refused."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from hippodrome.text import folder as folders
from hippodrome.text.folder import byte_words, carry, decode, encode, read

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "  two  spaces, a\ttab\nand a line; naïve Zürich 東京 🦊",
    "<|im_start|>user\nwhat is this?<|im_end|>\n",
    "<s>already begun</s>",
    "",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers saved: a small BPE with special tokens and a chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    begin = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=begin)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        chat_template="{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    )
    path = tmp_path_factory.mktemp("made")
    theirs.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "mamba", "eos_token_id": 2}))
    return path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def change(path: Path, **values: object) -> None:
    """Sets fields of a JSON file."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **values}))


def test_reads_and_writes_as_transformers_does(made: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(made)
    words = read(made)
    assert words is not None
    for text in TEXTS:
        for special in (True, False):
            expected = theirs(text, add_special_tokens=special)["input_ids"]
            assert encode(words, text, special=special) == expected
            shown = theirs.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert decode(words, expected) == shown
            assert decode(words, expected, special=True) == theirs.decode(
                expected, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
    assert len(encode(words, TEXTS[0])) > 9, "a setting to cut or fill up is not taken over"
    assert (words.bos, words.pad) == (theirs.bos_token_id, theirs.pad_token_id)
    assert words.ends == (2, theirs.eos_token_id)
    assert words.template is not None
    talk = [{"role": "user", "content": "hello"}]
    rendered = theirs.apply_chat_template(talk, tokenize=False)
    assert words.template.render(talk) == rendered
    assert encode(words, rendered, special=False)[:2].count(words.bos) == 1


def test_half_a_letter_is_no_text(made: Path) -> None:
    words = read(made)
    assert words is not None
    with pytest.raises(ValueError, match=r"'fox \\udcff' holds half a letter"):
        encode(words, "fox \udcff")


def test_generation_config_says_before_config_what_ends(copy: Path) -> None:
    change(copy / "generation_config.json", eos_token_id=[4, 2], bos_token_id=None)
    words = read(copy)
    assert words is not None
    assert words.ends == (4, 2, 5)
    change(copy / "generation_config.json", eos_token_id="</s>")
    with pytest.raises(ValueError, match="eos_token_id is a token id or a list"):
        read(copy)


def test_the_beginning_is_added_where_only_the_config_says_so(copy: Path) -> None:
    change(copy / "tokenizer.json", post_processor=None)
    words = read(copy)
    assert words is not None
    assert not words.add_bos
    assert encode(words, "fox")[0] != 1
    change(copy / "tokenizer_config.json", add_bos_token=True)
    words = read(copy)
    assert words is not None
    assert words.add_bos
    assert encode(words, "fox")[0] == 1
    assert encode(words, "<s>fox") == encode(words, "fox")
    assert encode(words, "fox", special=False) == encode(words, "fox")[1:]


def test_the_template_comes_from_the_file_of_its_own_first(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    assert read(copy).template is None  # type: ignore[union-attr]
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}]
    change(copy / "tokenizer_config.json", chat_template=named)
    assert read(copy).template.render([]) == "D<s>"  # type: ignore[union-attr]
    change(copy / "chat_template.json", chat_template="J")
    assert read(copy).template.render([]) == "J"  # type: ignore[union-attr]
    (copy / "chat_template.jinja").write_text("F")
    assert read(copy).template.render([]) == "F"  # type: ignore[union-attr]


def test_special_tokens_may_be_written_as_mappings(copy: Path) -> None:
    change(copy / "tokenizer_config.json", eos_token={"content": "</s>", "lstrip": False})
    assert read(copy).ends == (2,)  # type: ignore[union-attr]


def test_a_tokenizer_of_another_model_is_refused(made: Path) -> None:
    size = read(made).tokenizer.get_vocab_size()  # type: ignore[union-attr]
    assert read(made, size) is not None
    assert read(made, size + 64) is not None
    with pytest.raises(ValueError, match=f"ids up to {size - 1} .* the model has {size - 1} tokens"):
        read(made, size - 1)


def test_an_end_beyond_the_vocabulary_is_refused(copy: Path) -> None:
    change(copy / "config.json", eos_token_id=50256)
    with pytest.raises(ValueError, match="token 50256"):
        read(copy, 300)


def test_a_folder_without_a_tokenizer_has_no_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert read(tmp_path) is None


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json"])
def test_another_kind_of_tokenizer_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(ValueError, match=rf"{name} alone.*save_pretrained"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "1.0"', b"\xff\xfe\x00", b"[1, 2]"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_told_by_name(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    if (name, content) == ("tokenizer_config.json", b"{}"):
        assert read(copy) is not None
        return
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read(copy)


def test_files_go_along_to_another_folder(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 1}))
    words = read(copy)
    assert words is not None
    carry(words, copy, tmp_path)
    again = read(tmp_path)
    assert again is not None
    assert again.ends == words.ends
    assert (again.bos, again.pad) == (words.bos, words.pad)
    assert again.template.source == words.template.source  # type: ignore[union-attr]
    assert encode(again, TEXTS[1]) == encode(words, TEXTS[1])
    assert json.loads((tmp_path / "config.json").read_text()) == {"format": 1}
    assert {path.name for path in tmp_path.iterdir()} <= {*folders.FILES, "config.json", "copy"}


def test_a_run_folder_has_words_without_special_tokens(tmp_path: Path) -> None:
    from hippodrome.data.text import byte_tokenizer

    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "spec": {}}))
    words = read(tmp_path, 256)
    assert words is not None
    assert words[1:] == byte_words(words.tokenizer)[1:] == (None, (), None, None, False)
    assert encode(words, "é") == list("é".encode())
    assert decode(words, "é".encode()) == "é"

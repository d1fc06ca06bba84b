"""Text streams never cut a character in two, and hold little back whatever comes."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hippodrome.generate import text
from hippodrome.generate.decoding import TextStream
from hippodrome.models.language import LanguageModel


def byte_tokenizer() -> Tokenizer:
    """Token ids that are the bytes of UTF-8, by the table of the byte-level pre-tokenizer."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    letters = {chr(b): b for b in kept} | {chr(256 + i): b for i, b in enumerate(moved)}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = byte_tokenizer()


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_pieces_are_whole_characters_and_add_up(written):
    stream = TextStream(TOKENIZER)
    pieces = [stream.push(byte) for byte in written.encode()]
    assert "".join(pieces) + stream.flush() == written
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in written


def test_a_character_comes_with_its_last_byte():
    stream = TextStream(TOKENIZER)
    assert [stream.push(b) for b in "a😀b".encode()] == ["a", "", "", "", "😀", "b"]


def test_text_behind_garbage_survives():
    stream = TextStream(TOKENIZER)
    raw = bytes([0x80]) * 37 + "€".encode()
    found = "".join(stream.push(b) for b in raw) + stream.flush()
    assert found.endswith("€")
    assert set(found) == {"\ufffd", "€"}


def test_garbage_without_end_holds_little_back_and_takes_linear_time():
    stream = TextStream(TOKENIZER)
    started = time.perf_counter()
    found = sum(len(stream.push(0x80)) for _ in range(20_000))
    assert time.perf_counter() - started < 5
    assert found > 19_900
    assert len(stream.held) < 20


def test_an_unfinished_character_is_marked_at_the_end():
    stream = TextStream(TOKENIZER)
    assert [stream.push(b) for b in "ab€".encode()[:-1]] == ["a", "b", "", ""]
    assert stream.flush() == "\ufffd"


def test_a_model_streams_text_that_can_be_encoded():
    model = LanguageModel.example()
    if model.vocab_size > 256:
        pytest.skip("the example's vocabulary is not of bytes")
    pieces = list(text(model, TOKENIZER, "\x01", max_new_tokens=40, seed=0))
    "".join(pieces).encode()
    again = list(text(model, TOKENIZER, "\x01", max_new_tokens=40, seed=0))
    assert pieces == again


def test_an_empty_prompt_is_told():
    with pytest.raises(ValueError, match="prompt is empty"):
        text(LanguageModel.example(), TOKENIZER, "", max_new_tokens=1)


def test_ids_may_come_from_any_integer_type():
    assert TextStream(TOKENIZER).push(int(torch.tensor(65))) == "A"

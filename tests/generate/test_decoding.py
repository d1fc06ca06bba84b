"""Text streams never cut a character in two, and hold little back whatever comes."""

import itertools
import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generate._letters import fallback_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hippodrome.generate import text
from hippodrome.generate.decoding import StopText, TextStream
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


def test_bytes_that_turn_out_to_be_no_text_leave_what_was_shown():
    """The library reads bytes in a row as a whole, and fails where it had to take letters back."""
    tokenizer = fallback_tokenizer([*(f"<0x{i:02X}>" for i in range(256)), "▁The", "fox"])
    stream = TextStream(tokenizer, [257])
    raw = [1 + byte for byte in b"U\x8c"]
    assert [stream.push(i) for i in [*raw, 257, 258, 257]] == ["U", "", "\ufffd The", "fox", " The"]
    for seed in range(40):
        draw = random.Random(seed)
        ids = [draw.choice([1 + draw.randrange(256), 257, 258]) for _ in range(40)]
        stream = TextStream(tokenizer)
        found = "".join(map(stream.push, ids)) + stream.flush()
        assert found.count("The") == ids.count(257)
        assert found.count("fox") == ids.count(258)


def test_a_space_in_the_middle_of_a_text_is_part_of_it():
    tokenizer = fallback_tokenizer(["<0xC3>", "<0xA9>", "▁The", "▁fox", "▁", "s"])
    assert "".join(map(TextStream(tokenizer, [3]).push, [4, 6, 4])) == " foxs fox"
    assert "".join(map(TextStream(tokenizer).push, [4, 6, 4])) == "foxs fox"
    # Half a character before the text is no context.
    stream = TextStream(tokenizer, [3, 1])
    assert "".join(map(stream.push, [2, 4])) + stream.flush() != ""


def test_ids_may_come_from_any_integer_type():
    assert TextStream(TOKENIZER).push(int(torch.tensor(65))) == "A"


def by_hand(written: str, stops: list[str]) -> str:
    """The text before the first stop string that is complete, one character after the other."""
    for end in range(1, len(written) + 1):
        ended = [stop for stop in stops if written[:end].endswith(stop)]
        if ended:
            return written[: end - max(len(stop) for stop in ended)]
    return written


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab\n", max_size=24),
    st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3),
    st.lists(st.integers(0, 24), max_size=8),
)
def test_a_stop_string_ends_the_text_however_it_is_cut(written, stops, cuts):
    stop = StopText(stops)
    edges = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    shown = [stop.push(written[a:b]) for a, b in itertools.pairwise(edges)]
    expected = by_hand(written, stops)
    assert "".join(text for text, _ in shown) + stop.flush() == expected
    assert stop.met == any(one in written for one in stops)
    assert [met for _, met in shown] == sorted(met for _, met in shown)
    assert stop.met == any(met for _, met in shown)


def test_only_what_may_begin_a_stop_string_is_held_back():
    stop = StopText(["\nUser:", "END"])
    assert stop.push("one\nUs") == ("one", False)
    assert stop.push("e") == ("", False)
    assert stop.push("d up. E") == ("\nUsed up. ", False)
    assert stop.flush() == "E"
    assert stop.push("xEND of it") == ("x", True)
    assert stop.push("more") == ("", True)
    assert stop.flush() == ""


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="one character at least"):
        StopText(["a", ""])

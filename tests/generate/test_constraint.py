"""Output under a constraint matches it whatever the model is, and ends exactly where the text is complete."""

import json
import re

import llguidance
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from hippodrome.data.text import byte_tokenizer
from hippodrome.generate.constraint import Grammar, json_object, json_schema, regex
from hippodrome.generate.token_bytes import byte_of_letter, token_bytes

BYTES = byte_tokenizer()
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["mare", "Füllen"]},
        "wins": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "wins"],
    "additionalProperties": False,
}


def merged_tokenizer() -> Tokenizer:
    """Byte-level pairs with merges, an end, a token that is never text, and a hole in the numbering."""
    letter = {byte: letter for letter, byte in byte_of_letter().items()}
    pairs = [("a", "b"), ("ab", "c"), (letter[32], "a"), (letter[0xC3], letter[0xA9]), ("1", "2"), ('"', ":")]
    words = [*byte_of_letter(), *("".join(pair) for pair in pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|pad|>"])
    tokenizer.add_tokens(["Füllen"])
    return tokenizer


def fallback_tokenizer() -> Tokenizer:
    """Pieces with a mark for spaces, and single bytes for what is no piece."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcé", "▁a", "▁ab"]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [("▁", "a"), ("▁a", "b")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def character_tokenizer() -> Tokenizer:
    """A token for each letter, and one for all others."""
    vocabulary = {letter: i for i, letter in enumerate(["\ufffd", *'abé0123456789"{}: '])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "\ufffd"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def written(
    constraint: Grammar, vocab: int, ends: tuple[int, ...] = (), seed: int = 0, most: int = 300
) -> list[int]:
    """What a model of random logits writes under a constraint; None of it is an end."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while not constraint.done:
        logits = torch.randn(vocab, generator=generator)
        constraint.mask_(logits)
        token = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
        constraint.accept(token)
        if token in ends:
            break
        ids.append(token)
        assert len(ids) < most
    return ids


def raw(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    table = token_bytes(tokenizer)
    return b"".join(table[i] for i in ids)


PATTERNS = [
    r"[a-c]{3}-\d{2}",
    r"(ab|abc|a)(c|bc)? é{2}",
    r"x?y{2,5}",
    r"[^a]{4}",
    r"(?i)abc",
    r"\w{3}\W\s?",
    r"/[\D\n]{2}[\w-]\S",
    r"a/b\/\"",
    "c\nd\t/",
    "a/\nstart: /b[12]",
    r"a\\",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("make", [byte_tokenizer, merged_tokenizer, fallback_tokenizer])
def test_what_is_written_matches_as_a_whole(pattern, make):
    tokenizer = make()
    vocab = len(token_bytes(tokenizer)) + 5  # the model's vocabulary is padded
    for seed in range(5):
        ids = written(regex(pattern, tokenizer), vocab, seed=seed)
        assert max(ids) < vocab - 5
        assert re.fullmatch(pattern, raw(tokenizer, ids).decode(), re.ASCII)


def test_an_end_may_come_exactly_where_the_pattern_is_complete():
    tokenizer = merged_tokenizer()
    end = tokenizer.token_to_id("<|end|>")
    constraint = regex(r"a(bc)*", tokenizer, [end])
    for letter, whole in [("a", True), ("b", False), ("c", True), ("b", False), ("c", True)]:
        logits = torch.zeros(300)
        constraint.mask_(logits)
        constraint.accept(tokenizer.token_to_id(letter))
        assert (constraint.complete, constraint.done) == (whole, False)
        after = torch.zeros(300)
        constraint.mask_(after)
        assert bool(after[end] == 0) is whole
    assert not constraint.done
    constraint.accept(end)
    assert constraint.done
    with pytest.raises(ValueError, match="breaks the constraint"):
        constraint.accept(tokenizer.token_to_id("b"))


def test_several_ends_are_all_allowed_and_other_special_tokens_never():
    tokenizer = merged_tokenizer()
    end, pad = tokenizer.token_to_id("<|end|>"), tokenizer.token_to_id("<|pad|>")
    both = regex(r"a*", tokenizer, [end, pad]).allowed()
    one = regex(r"[\s\S]*", tokenizer, [end]).allowed()
    assert bool(both[end])
    assert bool(both[pad])
    assert bool(one[end])
    assert not bool(one[pad])


def test_an_end_that_the_tokenizer_does_not_know_is_none():
    constraint = regex("ab?", BYTES, [300])
    constraint.accept(ord("a"))
    assert constraint.allowed().nonzero()[:, 0].tolist() == [ord("b")]
    constraint.accept(ord("b"))
    assert constraint.done


def test_without_an_end_the_text_is_done_where_it_cannot_go_on():
    constraint = regex("ab?", BYTES)
    constraint.accept(ord("a"))
    assert constraint.complete
    assert not constraint.done
    constraint.accept(ord("b"))
    assert constraint.done
    with pytest.raises(ValueError, match="no token ends it"):
        constraint.mask_(torch.zeros(256))
    assert regex("", BYTES).done


def test_masks_are_those_of_the_pattern_token_by_token():
    """Brute force: a token is allowed where some text of the pattern begins with what is then written."""
    tokenizer = merged_tokenizer()
    texts = [a + b + c for a in ("a", "abc") for b in ("", "1", "12") for c in ("é", "e")]
    constraint = regex(r"(a|abc)(12?)?[ée]", tokenizer)
    table = token_bytes(tokenizer)
    for token in (tokenizer.token_to_id("ab"), tokenizer.token_to_id("c"), tokenizer.token_to_id("1")):
        for prefix_ids in ([], [token]):
            twin = constraint.copy()
            if prefix_ids:
                try:
                    twin.accept(token)
                except ValueError:
                    continue
            so_far = raw(tokenizer, prefix_ids)
            want = [
                bool(piece) and any(text.encode().startswith(so_far + piece) for text in texts)
                for piece in table
            ]
            assert twin.allowed().tolist() == want


@pytest.mark.parametrize("make", [byte_tokenizer, merged_tokenizer, fallback_tokenizer])
def test_json_is_valid_by_its_schema(make):
    tokenizer = make()
    for seed in range(4):
        ids = written(json_schema(SCHEMA, tokenizer), len(token_bytes(tokenizer)), seed=seed, most=400)
        found = json.loads(raw(tokenizer, ids))
        assert list(found) == ["name", "age", "kind", "wins"]
        assert isinstance(found["name"], str)
        assert len(found["name"]) <= 8
        assert type(found["age"]) is int
        assert 0 <= found["age"] <= 120
        assert found["kind"] in ("mare", "Füllen")
        assert len(found["wins"]) <= 3
        assert all(type(one) is bool for one in found["wins"])


def test_any_json_object():
    constraint = json_object(BYTES)
    allowed = constraint.allowed()
    assert allowed.nonzero()[:, 0].tolist() == [ord("{")]
    for letter in b'{"a": [1, {"b": null}], "c": -1.5e3}':
        constraint.accept(letter)
    assert constraint.done


def test_characters_of_a_small_vocabulary():
    tokenizer = character_tokenizer()
    assert token_bytes(tokenizer)[:4] == [b"", b"a", b"b", "é".encode()]
    ids = written(regex(r"é[0-9]{2}a", tokenizer), 20)
    assert re.fullmatch(r"é[0-9]{2}a", tokenizer.decode(ids))
    with pytest.raises(ValueError, match="cannot write what must follow"):
        regex("[x-z]", tokenizer)
    constraint = regex("[ab]x", tokenizer)
    constraint.accept(1)
    with pytest.raises(ValueError, match="cannot write what must follow"):
        constraint.mask_(torch.zeros(17))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: regex("(a", BYTES), "unclosed group"),
        (lambda: regex(r"(?=a)b", BYTES), "look-around"),
        (lambda: regex(r"[^\s\S]", BYTES), "cannot be met"),
        (lambda: json_schema({"type": "horse"}, BYTES), "Invalid type: horse"),
        (lambda: json_schema({"enum": []}, BYTES), "Unsatisfiable"),
        (lambda: json_schema({"type": "integer", "minimum": 5, "maximum": 3}, BYTES), "Unsatisfiable"),
        (lambda: json_schema({"type": "array", "uniqueItems": True}, BYTES), "uniqueItems"),
        (lambda: json_schema({"$ref": "https://example.org/x"}, BYTES), "does not fetch"),
        (lambda: json_schema(False, BYTES), "fulfilled by nothing"),
        (lambda: regex("a\\", BYTES), "cannot be used"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_token_that_breaks_the_constraint_is_refused():
    with pytest.raises(ValueError, match="breaks the constraint"):
        regex("abc", BYTES).accept(ord("b"))
    with pytest.raises(ValueError, match="breaks the constraint"):
        regex("abc", BYTES).accept(256)


def test_a_pattern_that_grows_beyond_bounds_is_told():
    constraint = regex("a{1000000}", BYTES)
    with pytest.raises(ValueError, match="too large to keep to"):
        constraint.accept(ord("a"))


def test_a_copy_goes_its_own_way():
    first = regex("a(b|c)d", BYTES)
    first.accept(ord("a"))
    second = first.copy()
    first.accept(ord("b"))
    second.accept(ord("c"))
    assert first.allowed().nonzero()[:, 0].tolist() == [ord("d")]
    second.accept(ord("d"))
    assert second.done
    assert not first.done


@pytest.mark.parametrize("make", [byte_tokenizer, merged_tokenizer, fallback_tokenizer])
def test_bytes_of_tokens_are_those_that_the_library_reads_out_of_the_file(make):
    tokenizer = make()
    theirs = llguidance.LLTokenizer(tokenizer.to_str())
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for i, ours in enumerate(token_bytes(tokenizer)):
        if i not in special and ours != b"\xff":
            assert ours == theirs.decode_bytes([i])


def test_tokens_that_write_no_bytes_of_their_own_are_refused():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="WordPiece"):
        regex("a", tokenizer)
    tokenizer.decoder = None
    with pytest.raises(ValueError, match="decodes by none"):
        regex("a", tokenizer)


def test_masking_a_large_vocabulary_takes_little_memory_and_one_pass():
    """Logits beyond the tokenizer's ids, and all in bfloat16, are masked as those of float32."""
    constraint = regex("[ab]", BYTES)
    logits: Tensor = torch.zeros(50_280, dtype=torch.bfloat16)
    constraint.mask_(logits)
    assert torch.isfinite(logits).nonzero()[:, 0].tolist() == [97, 98]

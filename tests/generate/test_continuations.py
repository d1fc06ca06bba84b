"""Rows continued together: text, reasons of ends, log-probabilities, and rows that share nothing."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import Chooser, Continuations, Piece, Sampler, pieces, prefill, rows, text
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.gru import GRU
from hippodrome.models.language import LanguageModel

LETTERS = "abcdefgh "
ENDS = (9,)
"""A token of the tokenizer that writes nothing."""


def tokenizer_of_letters() -> Tokenizer:
    found = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)} | {"<end>": 9}, "a"))
    found.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    found.decoder = decoders.Fuse()
    found.add_special_tokens(["<end>"])
    return found


TOKENIZER = tokenizer_of_letters()


@pytest.fixture
def model() -> LanguageModel:
    """A model of letters with a vocabulary that is padded, in float64."""
    model = LanguageModel(Stack([Block(GRU(16)), Block(Attention(16))]), 16).double().eval()
    with torch.no_grad():
        model.embedding.weight.normal_()
    return model


def by_row(found: list[Piece], count: int) -> list[tuple[str, list[int], str | None]]:
    """Each row's text, tokens and reason."""
    return [
        (
            "".join(piece.text for piece in found if piece.row == row),
            [token for piece in found if piece.row == row for token in piece.ids],
            next((piece.finish_reason for piece in found if piece.row == row and piece.finish_reason), None),
        )
        for row in range(count)
    ]


SAMPLER = Sampler(1.2, top_p=0.95, repetition_penalty=1.1, frequency_penalty=0.2)
PROMPTS = ["abc", "a", "hgfedcba", "dd", "b b"]


def endings(model: LanguageModel) -> tuple[list, list[str]]:
    """What rows write without an end, and stop strings that some of them come to."""
    free = by_row(list(pieces(model, TOKENIZER, PROMPTS, sampler=SAMPLER, max_new_tokens=30, seed=4)), 5)
    return free, [free[0][0][3:6], free[2][0][15:18]]


def test_rows_share_nothing(model):
    options = {"sampler": SAMPLER, "max_new_tokens": 30, "ends": ENDS, "logprobs": 2}
    options["stops"] = endings(model)[1]
    together = list(pieces(model, TOKENIZER, PROMPTS, seed=4, **options))
    found = by_row(together, len(PROMPTS))
    assert len({len(ids) for _, ids, _ in found}) > 2
    for row, prompt in enumerate(PROMPTS):
        alone = list(pieces(model, TOKENIZER, [prompt], seed=4 + row, **options))
        assert by_row(alone, 1) == [found[row]]
        told = [one for piece in together if piece.row == row for one in piece.logprobs]
        for one, other in zip(told, [one for piece in alone for one in piece.logprobs], strict=True):
            assert (one.id, [i for i, _ in one.top]) == (other.id, [i for i, _ in other.top])
            assert one.logprob == pytest.approx(other.logprob, rel=1e-9)


def test_texts_end_as_they_say(model):
    free, stops = endings(model)
    assert all(reason == "length" and len(ids) == 30 for _, ids, reason in free)
    options = {"sampler": SAMPLER, "max_new_tokens": 30, "seed": 4, "ends": ENDS, "stops": stops}
    ended = by_row(list(pieces(model, TOKENIZER, PROMPTS, **options)), len(PROMPTS))
    assert {reason for _, _, reason in ended} == {"stop", "length"}
    for (whole, all_ids, _), (shown, ids, reason) in zip(free, ended, strict=True):
        assert whole.startswith(shown)
        assert all_ids[: len(ids)] == ids
        written = TOKENIZER.decode(ids)
        if ids[-1] in ENDS:
            assert (shown, reason) == (written, "stop")
        elif reason == "stop":
            assert written in [shown + stop for stop in stops]
        else:
            assert (len(ids), shown) == (30, written)


def test_a_token_that_ends_a_row_is_not_text_even_where_it_writes_a_letter(model):
    (whole, ids, _), *_ = endings(model)[0]
    options = {"sampler": SAMPLER, "max_new_tokens": 30, "seed": 4, "ends": [ids[5]]}
    ((shown, made, reason),) = by_row(list(pieces(model, TOKENIZER, PROMPTS[:1], **options)), 1)
    length = ids.index(ids[5]) + 1
    assert (made, reason) == (ids[:length], "stop")
    assert shown == TOKENIZER.decode(ids[: length - 1])
    assert whole.startswith(shown)


def test_log_probabilities_are_those_of_the_full_pass(model):
    sampler = Sampler(0.7, top_k=3, presence_penalty=1.0)
    found = list(pieces(model, TOKENIZER, ["abc"], sampler=sampler, max_new_tokens=9, seed=1, logprobs=2))
    told = [one for piece in found for one in piece.logprobs]
    ids = torch.tensor([TOKENIZER.encode("abc").ids + [one.id for one in told]])
    # Words of the tokenizer alone can come, so theirs is the softmax.
    expected = model(ids[:, :-1])[0][0, 2:, :10].log_softmax(-1)
    for one, row in zip(told, expected, strict=True):
        assert one.logprob == pytest.approx(row[one.id].item(), rel=1e-9)
        values, places = row.topk(2)
        assert [token for token, _ in one.top] == places.tolist()
        assert [value for _, value in one.top] == pytest.approx(values.tolist(), rel=1e-9)


def test_padding_of_the_vocabulary_is_never_written(model):
    found = list(pieces(model, TOKENIZER, ["a"], sampler=Sampler(50.0), max_new_tokens=60, seed=0))
    assert max(token for piece in found for token in piece.ids) == 9


def test_a_prompt_that_comes_several_times_is_read_once(model):
    read: list[tuple[int, ...]] = []
    last = model.last
    model.last = lambda ids, state, **more: read.append(tuple(ids.shape)) or last(ids, state, **more)
    asked = ["abc", "ddfgh", "abc", "abc"]
    options = {"sampler": SAMPLER, "max_new_tokens": 9, "seed": 4}
    found = by_row(list(pieces(model, TOKENIZER, asked, **options)), 4)
    assert sum(rows * t for rows, t in read) <= 2 * 5, "two prompts, the shorter one padded"
    for row, prompt in enumerate(asked):
        alone = list(pieces(model, TOKENIZER, [prompt], **{**options, "seed": 4 + row}))
        assert by_row(alone, 1) == [found[row]]


def test_rows_that_end_leave_the_batch(model):
    ids = [torch.tensor(TOKENIZER.encode(prompt).ids) for prompt in PROMPTS]
    lengths: list[int] = []
    advance = model.advance_
    model.advance_ = lambda ids, state: lengths.append(len(ids)) or advance(ids, state)
    going = Continuations(model, ids, [Chooser(Sampler(0.0), vocab_size=16) for _ in ids], max_new_tokens=7)
    for step, chosen in enumerate(going):
        # What the caller ended after an earlier step chooses nothing any more.
        assert [found is None for found in chosen] == [reason == "stop" for reason in going.reasons]
        if step == 1:
            going.end(0)
        if step == 3:
            going.end(2)
            going.end(3)
    assert going.held == [1, 4]
    assert going.reasons == ["stop", "length", "stop", "stop", "length"]
    assert lengths == [5, 5, 5, 2, 2, 2]


def test_a_state_can_be_gone_on_from_and_is_left_alone(model):
    whole = "".join(text(model, TOKENIZER, "abcdefg", max_new_tokens=12, temperature=0.0))
    ids = torch.tensor([TOKENIZER.encode("abcd").ids])
    for room in (None, 40):
        _, state = prefill(model, ids, max_length=room)
        for _ in range(2):
            options = {
                "sampler": Sampler(0.0),
                "max_new_tokens": 12,
                "state": state,
                "fixed": room is not None,
            }
            found = pieces(model, TOKENIZER, ["efg"], **options)
            assert "".join(piece.text for piece in found) == whole


def test_the_state_told_is_that_of_all_tokens_but_the_newest(model):
    ids = torch.tensor([TOKENIZER.encode("abcd").ids])
    going = Continuations(model, ids, [Chooser(Sampler(0.0), vocab_size=16)], max_new_tokens=5)
    made = [chosen[0].id for chosen in going]
    read = torch.cat([ids, torch.tensor([made[:-1]])], 1)
    expected, _ = prefill(model, read)
    found, _ = model.last(torch.tensor([made[-1:]]), going.state)
    again, _ = prefill(model, torch.cat([read, torch.tensor([made[-1:]])], 1))
    torch.testing.assert_close(found, again, rtol=1e-9, atol=1e-9)
    assert int(expected.argmax()) == made[-1]


class Exactly:
    """A constraint that lets one sequence of tokens through."""

    def __init__(self, wanted: list[int]) -> None:
        self.wanted = list(wanted)

    @property
    def done(self) -> bool:
        return not self.wanted

    def mask_(self, logits: torch.Tensor) -> None:
        kept = float(logits[self.wanted[0]])
        logits.fill_(-torch.inf)
        logits[self.wanted[0]] = kept

    def accept(self, token: int) -> None:
        assert token == self.wanted.pop(0)

    def copy(self) -> "Exactly":
        return Exactly(self.wanted)


def test_a_row_whose_constraint_is_complete_ends(model):
    constraints = [Exactly([1, 2, 3]), None, Exactly([])]
    found = list(pieces(model, TOKENIZER, ["a", "b", "c"], constraints=constraints, max_new_tokens=5, seed=0))
    told = by_row(found, 3)
    assert told[0] == ("bcd", [1, 2, 3], "stop")
    assert told[1][2] == "length"
    assert told[2] == ("", [], "stop")


def test_nothing_is_asked_for(model):
    found = list(pieces(model, TOKENIZER, ["a", "b"], max_new_tokens=0))
    assert found == [Piece("", (), (), "length", 0), Piece("", (), (), "length", 1)]


def test_a_stop_string_in_the_last_bytes_counts():
    """Bytes of a character that was begun come at the end, as U+FFFD, and may be what is waited for."""
    # In the alphabet of byte-level tokenizers this letter is byte 233, which begins a character of three.
    bytes_alone = Tokenizer(models.BPE(vocab={"é": 0, "a": 1}, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_alone.decoder = decoders.ByteLevel()
    model = LanguageModel(Stack([Block(GRU(8))]), 2)
    forced = Sampler(0.0, logit_bias={0: 100.0})
    found = list(pieces(model, bytes_alone, [[1]], sampler=forced, max_new_tokens=1, stops=["\ufffd"]))
    assert [(piece.text, piece.finish_reason) for piece in found] == [("", "stop")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompts": ["a", ""]}, "the prompt is empty"),
        ({"prompts": ["a", "b"], "seed": [1]}, "one for each of 2; got 1"),
        ({"prompts": ["a"], "constraints": []}, "a constraint or None; got 0"),
        ({"prompts": ["a"], "stops": [""]}, "one character at least"),
        ({"prompts": ["a"], "max_new_tokens": -1}, "max_new_tokens is 0 or more"),
        ({"prompts": ["a"], "logprobs": -1}, "logprobs is 0 or more"),
        ({"prompts": []}, "there is no prompt"),
        ({"prompts": [[1], [2, 16]]}, "from 0 to 15 for this model; prompt 2 has 16"),
    ],
)
def test_what_cannot_be_meant_is_told_at_once(model, options, said):
    prompts = options.pop("prompts")
    with pytest.raises(ValueError, match=said):
        pieces(model, TOKENIZER, prompts, **options)


def test_each_row_has_a_chooser(model):
    with pytest.raises(ValueError, match="each row has a chooser; got 1 for 2"):
        Continuations(model, torch.ones(2, 3, dtype=torch.long), [Chooser(Sampler(), vocab_size=16)])


def test_a_forked_state_goes_two_ways(model):
    _, state = prefill(model, torch.tensor([TOKENIZER.encode("abc").ids]))
    fork = rows.take(state, [0, 0])
    found = by_row(
        list(pieces(model, TOKENIZER, ["d", "h"], sampler=Sampler(0.0), max_new_tokens=9, state=fork)), 2
    )
    for (shown, _, _), prompt in zip(found, ("abcd", "abch"), strict=True):
        assert shown == "".join(text(model, TOKENIZER, prompt, max_new_tokens=9, temperature=0.0))

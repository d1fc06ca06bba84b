"""Texts under way and conversations: what is kept between turns changes no answer and is not read again."""

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer

from hippodrome import config
from hippodrome.data.text import byte_tokenizer
from hippodrome.generate import Chooser, Sampler, pieces
from hippodrome.generate.constraint import regex
from hippodrome.generate.conversation import Conversation
from hippodrome.generate.session import Session
from hippodrome.models.base import Model
from hippodrome.text.folder import Words, byte_words
from hippodrome.text.template import Template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMING = CHATML.replace("m.content", "(m.content | trim | upper)")


def chat_tokenizer() -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    return tokenizer


def words_of(source: str = CHATML) -> Words:
    tokenizer = chat_tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    return Words(tokenizer, None, (end,), None, Template(source, {}), False)


@pytest.fixture(scope="module")
def model() -> Model:
    """Bytes and a few more tokens; a recurrence and an attention that keeps all keys."""
    torch.manual_seed(0)
    mixers = [
        {"kind": "mamba2", "d_model": 16, "d_state": 4, "head_dim": 8},
        {"kind": "attention", "d_model": 16, "heads": 2},
    ]
    blocks = [{"kind": "block", "mixer": mixer} for mixer in mixers]
    spec = {"kind": "language", "vocab_size": 264, "backbone": {"kind": "stack", "blocks": blocks}}
    built = config.build(spec).eval()
    with torch.no_grad():
        built.embedding.weight *= 40  # so that chances differ by more than rounding
    return built


def said(answer) -> str:
    return "".join(answer)


def alone(model: Model, words: Words, ids: list[int], sampler: Sampler, seed: int, most: int = 24) -> str:
    """The continuation of the same tokens read at once."""
    found = pieces(
        model, words.tokenizer, [ids], sampler=sampler, seed=seed, max_new_tokens=most, ends=words.ends
    )
    return "".join(piece.text for piece in found)


def laid_out(words: Words, messages: list[dict]) -> list[int]:
    assert words.template is not None
    return words.tokenizer.encode(words.template.render(messages), add_special_tokens=False).ids


@pytest.mark.parametrize("source", [CHATML, TRIMMING])
def test_each_answer_is_that_of_the_whole_text_read_at_once(model, source):
    words, sampler = words_of(source), Sampler(0.9)
    talk = Conversation(model, words, sampler=sampler, seed=5, max_new_tokens=24, system="Be brief.")
    for turn, question in enumerate(["Hello?", "And then?", "äöü €"]):
        before = [*talk.messages, {"role": "user", "content": question}]
        answer = said(talk.ask(question))
        assert answer == alone(model, words, laid_out(words, before), sampler, 5 + turn)
        assert talk.messages == [*before, {"role": "assistant", "content": answer}]
    assert talk.spent.written > 0


def test_only_what_is_new_is_read(model):
    words = words_of()
    talk = Conversation(model, words, sampler=Sampler(0), max_new_tokens=8)
    for _ in range(3):
        said(talk.ask("Go on"))
    whole = len(laid_out(words, talk.messages[:-1]))
    # Answers that are no canonical spelling of bytes would be read again; these bytes are.
    written = talk.spent.written
    assert talk.spent.read <= whole
    assert talk.spent.read + talk.spent.kept > 2 * whole - written
    assert len(talk.session.ids) >= whole


def test_what_a_template_changes_afterwards_is_read_again(model):
    changing = "{% for m in messages %}{{ m.content + (loop.length | string) }}{% endfor %}"
    words = words_of(changing)
    talk = Conversation(model, words, sampler=Sampler(0), max_new_tokens=6)
    said(talk.ask("a"))
    before = [*talk.messages, {"role": "user", "content": "b"}]
    kept = talk.spent.kept
    assert said(talk.ask("b")) == alone(model, words, laid_out(words, before), Sampler(0), 0, 6)
    assert talk.spent.kept - kept <= 1


def test_another_answer_costs_no_reading(model):
    words = words_of()
    talk = Conversation(model, words, sampler=Sampler(1.0), seed=3, max_new_tokens=12)
    first = said(talk.ask("Say something"))
    read = talk.spent.read
    second = said(talk.retry())
    assert talk.spent.read == read
    assert first != second
    assert second == alone(model, words, laid_out(words, talk.messages[:1]), Sampler(1.0), 4, 12)
    assert [m["role"] for m in talk.messages] == ["user", "assistant"]
    talk.reset()
    assert talk.messages == []
    with pytest.raises(ValueError, match="no message yet"):
        talk.retry()


def test_an_answer_that_is_broken_off_leaves_the_conversation_whole(model):
    words = words_of()
    talk = Conversation(model, words, sampler=Sampler(0.9), seed=1, max_new_tokens=50)
    answer = talk.ask("Hello?")
    heard = [next(answer) for _ in range(5)]
    answer.close()
    assert talk.messages[-1] == {"role": "assistant", "content": "".join(heard)}
    before = [*talk.messages, {"role": "user", "content": "More"}]
    assert said(talk.ask("More")) == alone(model, words, laid_out(words, before), Sampler(0.9), 2, 50)


def test_a_message_of_which_nothing_is_left_is_no_message(model):
    talk = Conversation(model, words_of("{{ messages[-1].content | trim }}"), max_new_tokens=3)
    with pytest.raises(ValueError, match="prompt is empty"):
        talk.ask(" ")
    assert talk.messages == []


def test_saved_and_taken_up_by_another(model, tmp_path):
    words = words_of()
    first = Conversation(model, words, sampler=Sampler(0.9), seed=2, max_new_tokens=10, system="S")
    said(first.ask("Hello?"))
    first.save(tmp_path / "talk")
    second = Conversation(model, words, sampler=Sampler(0.9), seed=2, max_new_tokens=10)
    second.load(tmp_path / "talk")
    assert second.messages == first.messages
    assert said(second.ask("And?")) == said(first.ask("And?"))
    assert second.spent.kept == first.spent.kept > 0
    session = Session(model, words.tokenizer)
    session.read([1, 2])
    session.save(tmp_path / "text")
    with pytest.raises(ValueError, match="no conversation"):
        second.load(tmp_path / "text")
    assert second.messages == first.messages
    with pytest.raises(ValueError, match="nothing to save"):
        Conversation(model, words).save(tmp_path / "none")


def test_without_a_template_turns_are_named_and_end_at_the_next(model):
    talk = Conversation(model, byte_words(byte_tokenizer()), sampler=Sampler(0), max_new_tokens=5)
    assert talk.plain
    answer = said(talk.ask(" Hi "))
    text = byte_tokenizer().decode(list(talk.session.ids))
    assert text == "User: Hi\nAssistant:" + answer
    # A model that goes on with the user's turn is stopped there, and that is not shown.
    forced = regex(r" Yes\.\nUser: and", byte_tokenizer())
    session = Session(model, byte_tokenizer())
    session.read([65])
    chooser = Chooser(Sampler(0), vocab_size=256, constraint=forced)
    assert said(session.write(chooser, max_new_tokens=99, stops=("\nUser:",))) == " Yes."
    assert session.reason == "stop"
    assert forced.allowed().nonzero()[:, 0].tolist() == [ord(" ")]


# Sessions


def test_a_text_read_in_parts_and_written_in_parts_is_one_text(model, tmp_path):
    words, text = words_of(), "A text of some length, é."
    ids = words.tokenizer.encode(text).ids
    want = alone(model, words, ids, Sampler(0.8), 9, 30)
    session = Session(model, words.tokenizer, chunk=4)
    session.read(ids[:7])
    session.read(ids[7:])
    chooser = Chooser(Sampler(0.8), vocab_size=258, seed=9)
    found = said(session.write(chooser, max_new_tokens=11, ends=words.ends))
    assert session.reason in ("length", "stop")
    if session.reason == "length":
        session.save(tmp_path / "a", chooser=chooser)
        other = Session(model, words.tokenizer)
        snap = other.load(tmp_path / "a")
        assert (snap.written, snap.seed, snap.drawn) == (11, 9, 11)
        chooser = Chooser(Sampler(0.8), vocab_size=258, seed=snap.seed, drawn=snap.drawn)
        found += said(other.write(chooser, max_new_tokens=19, ends=words.ends))
    # Bytes that are no text come out as marks, each part by itself.
    assert found.replace("\ufffd", "") == want.replace("\ufffd", "")


def test_what_was_written_is_counted_however_often_it_was_put_down(model, tmp_path):
    """Penalties count all that the model wrote: a text saved twice goes on as one that was not."""
    words, ids = words_of(), [65, 66]
    sampler = Sampler(1.0, frequency_penalty=1.5, presence_penalty=0.5)

    def chooser(prompt: tuple[int, ...], written: tuple[int, ...] = (), **options) -> Chooser:
        return Chooser(sampler, vocab_size=256, prompt=prompt, output=written, **options)

    whole = Session(model, words.tokenizer)
    whole.read(ids)
    said(whole.write(chooser((65, 66), seed=4), max_new_tokens=18))
    session, now = Session(model, words.tokenizer), chooser((65, 66), seed=4)
    session.read(ids)
    for count in (7, 5, 6):
        said(session.write(now, max_new_tokens=count))
        session.save(tmp_path / "a", chooser=now)
        session = Session(model, words.tokenizer)
        snap = session.load(tmp_path / "a")
        place = len(session.ids) - snap.written
        now = chooser(session.ids[:place], session.ids[place:], seed=snap.seed, drawn=snap.drawn)
    assert session.ids == whole.ids
    assert snap.written == 18
    # A token that ends the text is no part of it, and what was written before it still is.
    end = int(session.point.logits.argmax())
    said(session.write(chooser(()), max_new_tokens=9, ends=range(256)))
    assert session.reason == "stop"
    session.save(tmp_path / "a")
    assert session.load(tmp_path / "a").written == 18
    session.read([end])
    session.save(tmp_path / "a")
    assert session.load(tmp_path / "a").written == 0


def test_writing_without_end_and_gone_back_to(model):
    words = words_of()
    session = Session(model, words.tokenizer)
    session.read([72, 105])
    start = session.point
    endless = session.write(Chooser(Sampler(0), vocab_size=256), max_new_tokens=None)
    first = [next(endless) for _ in range(20)]
    endless.close()
    assert len(session.ids) == 22
    session.point = start
    bounded = session.write(Chooser(Sampler(0), vocab_size=256), max_new_tokens=20)
    assert said(bounded).startswith("".join(first))
    with pytest.raises(ValueError, match="prompt is empty"):
        Session(model, words.tokenizer).write(Chooser(Sampler(0), vocab_size=256))


def test_a_constraint_ends_the_text(model):
    words = words_of()
    session = Session(model, words.tokenizer)
    session.read([72])
    chooser = Chooser(Sampler(1.0), vocab_size=256, seed=0, constraint=regex("[a-z]{4}", words.tokenizer))
    found = said(session.write(chooser, max_new_tokens=50))
    assert len(found) == 4
    assert found.isalpha()
    assert session.reason == "stop"


def test_files_of_texts_are_private(model, tmp_path: Path):
    session = Session(model, words_of().tokenizer)
    session.read([1])
    session.save(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0

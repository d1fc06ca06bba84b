"""Generation: streaming equals the full forward pass, seeds reproduce, the caller's states come back."""

import itertools

import pytest
import torch

from hippodrome.generate import Chooser, Sampler, generate, prefill, stream
from hippodrome.models.language import LanguageModel


@pytest.fixture
def model() -> LanguageModel:
    """A small model in float64, so that streaming and the full pass cannot disagree on a tie."""
    model = LanguageModel.example().double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return model.eval()


def prompt(model: LanguageModel, b: int, t: int) -> torch.Tensor:
    return torch.randint(0, model.vocab_size, (b, t))


def test_greedy_streaming_is_the_argmax_of_the_full_pass(model):
    ids = prompt(model, 3, 5)
    for token in generate(model, ids, max_new_tokens=20, temperature=0.0):
        expected = model(ids)[0][:, -1].argmax(-1)
        assert torch.equal(token, expected)
        ids = torch.cat([ids, token[:, None]], 1)
    assert ids.shape == (3, 25)


def test_a_prompt_read_in_chunks_is_the_prompt_read_at_once(model):
    ids = prompt(model, 2, 23)
    whole, _ = model(ids)
    last, state = prefill(model, ids[:, :17], chunk=5)
    torch.testing.assert_close(last, whole[:, 16], rtol=1e-9, atol=1e-9)
    last, _ = prefill(model, ids[:, 17:], state)
    torch.testing.assert_close(last, whole[:, -1], rtol=1e-9, atol=1e-9)


def test_seeds_reproduce_and_differ(model):
    ids = prompt(model, 2, 4)

    def sample(seed: int) -> list:
        return torch.stack(list(generate(model, ids, max_new_tokens=30, seed=seed))).tolist()

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_the_callers_random_state_is_left_alone(model):
    before = torch.get_rng_state()
    list(generate(model, prompt(model, 1, 2).clone(), max_new_tokens=5))
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    prompt(model, 1, 2)
    assert torch.equal(torch.get_rng_state(), after)


def test_top_k_of_one_is_greedy(model):
    ids = prompt(model, 2, 4)
    greedy = torch.stack(list(generate(model, ids, max_new_tokens=12, temperature=0.0)))
    first = torch.stack(list(generate(model, ids, max_new_tokens=12, top_k=1, seed=3)))
    assert torch.equal(greedy, first)


def test_a_row_that_has_ended_repeats_its_stop_token_until_all_have(model):
    ids = prompt(model, 3, 4)
    free = torch.stack(list(generate(model, ids, max_new_tokens=40, seed=0)))
    stop = {int(free[3, 0]), int(free[6, 1]), int(free[9, 2])}
    stopped = torch.stack(list(generate(model, ids, max_new_tokens=40, seed=0, stop=stop)))
    first = [next(i for i in range(40) if int(free[i, row]) in stop) for row in range(3)]
    assert len(stopped) == max(first) + 1
    for row, end in enumerate(first):
        assert torch.equal(stopped[: end + 1, row], free[: end + 1, row])
        assert set(stopped[end:, row].tolist()) == {int(free[end, row])}


def test_the_models_mode_comes_back(model):
    model.train()
    stream = generate(model, prompt(model, 1, 3), max_new_tokens=None)
    tokens = list(itertools.islice(stream, 5))
    assert len(tokens) == 5
    assert not model.training
    stream.close()
    assert model.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
    ],
)
def test_what_is_out_of_range_is_told_at_once(model, options, said):
    with pytest.raises(ValueError, match=said):
        generate(model, prompt(model, 1, 2), **options)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="at least one token"):
        list(generate(model, torch.zeros(1, 0, dtype=torch.long)))


def test_no_tokens_can_be_asked_for(model):
    assert list(generate(model, prompt(model, 1, 2), max_new_tokens=0)) == []


def test_the_state_does_not_grow_with_what_was_read(model):
    def size(tokens: int) -> int:
        _, state = prefill(model, prompt(model, 1, tokens), chunk=64)
        return sum(tensor.numel() for inner in state for tensor in inner)

    assert size(2) == size(500)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 9, "top_p": 0.9}])
def test_rows_that_choose_at_once_choose_what_each_chooses(model, options):
    """The form of accelerators, here on the CPU."""
    ids = [*prompt(model, 3, 5), *prompt(model, 1, 2)]
    free = torch.stack(list(generate(model, ids, max_new_tokens=20, seed=3, **options)))
    for stop in ((), {int(free[4, 0]), int(free[9, 3])}):
        alone = list(generate(model, ids, max_new_tokens=20, seed=3, stop=stop, **options))
        choosers = [Chooser(Sampler(), vocab_size=model.vocab_size, seed=3 + row) for row in range(4)]
        at_once = stream._on_device(model, ids, 20, Sampler(**options), choosers, frozenset(stop))
        assert torch.equal(torch.stack(list(at_once)), torch.stack(alone))

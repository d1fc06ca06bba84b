"""Beam search against that of transformers on the same logits, an exhaustive one, and greedy generation."""

import itertools

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import generate
from hippodrome.generate.beam import beams
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.language import LanguageModel

VOCAB, NEW = 13, 14


def model_of(*mixers, sharp: float = 0.5) -> LanguageModel:
    model = LanguageModel(Stack([Block(mixer) for mixer in mixers]), VOCAB).eval()
    with torch.no_grad():
        model.embedding.weight.normal_(std=sharp)
    return model


MODELS = {
    "mamba2": lambda sharp=0.5: model_of(Mamba2(16), Mamba2(16), sharp=sharp),
    "attention": lambda sharp=0.5: model_of(Attention(16), Attention(16, window=3), sharp=sharp),
    "both": lambda sharp=0.5: model_of(Mamba2(16), Attention(16), sharp=sharp),
}


class Wrapped(PreTrainedModel, GenerationMixin):
    """One of our models as transformers generates from it: all tokens anew for each, with no state."""

    config_class = PretrainedConfig
    main_input_name = "input_ids"
    _supports_cache_class = False

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(PretrainedConfig(vocab_size=VOCAB))
        self.model = model

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, return_dict=True, **_):
        return CausalLMOutput(logits=self.model(input_ids)[0])


@torch.no_grad()
def theirs(model: LanguageModel, prompt: torch.Tensor, ends: list[int], count: int, **options) -> list:
    """The continuations that transformers finds for one prompt, without padding, and their scores."""
    rules = GenerationConfig(
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=VOCAB,
        num_return_sequences=count,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    given = torch.ones_like(prompt[None])
    answer = Wrapped(model).generate(prompt[None], attention_mask=given, generation_config=rules)
    rows = [[i for i in row if i != VOCAB] for row in answer.sequences[:, len(prompt) :].tolist()]
    return list(zip(rows, answer.sequences_scores.tolist(), strict=True))


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0])
def test_it_finds_what_transformers_finds(length_penalty, early_stopping):
    options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    # Ends that come now and then: under these seeds the three ways to stop find different continuations.
    cases: list[tuple[str, int, float, list[int]]] = [
        ("both", 5, 0.2, [3, 8, 1, 5]),
        ("both", 3, 0.2, [3, 8]),
    ]
    if length_penalty == 1.0:
        cases += [("mamba2", 0, 0.5, [3, 8, 1, 5]), ("attention", 1, 0.4, [])]
    for kind, seed, sharp, ends in cases:
        torch.manual_seed(seed)
        model = MODELS[kind](sharp)
        prompts = [torch.randint(VOCAB, (t,)) for t in (4, 7)]
        mine = beams(model, prompts, width=3, count=3, max_new_tokens=NEW, ends=ends, **options)
        for prompt, found in zip(prompts, mine, strict=True):
            expected = theirs(model, prompt, ends, 3, num_beams=3, **options)
            assert [list(beam.ids) for beam in found] == [ids for ids, _ in expected]
            assert [beam.score for beam in found] == pytest.approx([s for _, s in expected], rel=1e-4)


def test_a_search_that_is_wide_enough_finds_the_best_of_all():
    model = model_of(GRU(8), sharp=1.0).double()
    prompt = torch.randint(VOCAB, (1, 3))
    tails = torch.tensor(list(itertools.product(range(VOCAB), repeat=3)))
    with torch.no_grad():
        logits = model(torch.cat([prompt.expand(len(tails), -1), tails], 1))[0][:, 2:-1].log_softmax(-1)
    sums = logits.gather(2, tails[..., None])[..., 0].sum(1)
    values, places = sums.topk(3)
    found = beams(model, prompt, width=VOCAB**2, count=3, max_new_tokens=3, length_penalty=0.0)[0]
    assert [list(beam.ids) for beam in found] == tails[places].tolist()
    assert [beam.score for beam in found] == pytest.approx(values.tolist(), rel=1e-9)
    assert {beam.finish_reason for beam in found} == {"length"}


def test_padding_of_the_vocabulary_is_never_found():
    model, most = MODELS["both"](2.0).double(), 5
    prompt = torch.randint(VOCAB, (1, 4))
    found = beams(model, prompt, width=3, count=3, max_new_tokens=4, length_penalty=0.0, vocab_size=most)[0]
    assert any(i >= most for beam in beams(model, prompt, width=3, count=3)[0] for i in beam.ids)
    for beam in found:
        with torch.no_grad():
            ids = torch.tensor([beam.ids])
            logits = model(torch.cat([prompt, ids], 1))[0][0, 3:-1, :most].log_softmax(-1)
        assert max(beam.ids) < most
        assert beam.score == pytest.approx(float(logits.gather(1, ids[0, :, None]).sum()), rel=1e-9)


def test_a_width_of_one_is_greedy():
    model = MODELS["both"]().double()
    prompt = torch.randint(VOCAB, (2, 4))
    greedy = torch.stack(list(generate(model, prompt, max_new_tokens=6, temperature=0.0)), 1)
    assert [
        list(found[0].ids) for found in beams(model, prompt, width=1, max_new_tokens=6)
    ] == greedy.tolist()


def test_nothing_is_asked_for():
    found = beams(MODELS["both"](), torch.ones(2, 1, dtype=torch.long), max_new_tokens=0)
    assert [[beam.ids for beam in row] for row in found] == [[()], [()]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 0}, "width is 1 or more"),
        ({"width": 2, "count": 3}, "count from 1 to width; got width 2, count 3"),
        ({"max_new_tokens": -1}, "max_new_tokens is 0 or more"),
    ],
)
def test_what_is_out_of_range_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        beams(MODELS["both"](), torch.ones(1, 1, dtype=torch.long), **options)

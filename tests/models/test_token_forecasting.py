"""What is peculiar to the forecaster over a language model: prompts, fusion, frozen weights, rolling on."""

import copy
import statistics

import pytest
import torch
from torch import Tensor

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.config import build, validate
from hippodrome.data.text import byte_tokenizer, train_tokenizer
from hippodrome.mixers.gru import GRU
from hippodrome.models import _prompts
from hippodrome.models._language_part import language_settings, language_tensors, with_language
from hippodrome.models.language import LanguageModel
from hippodrome.models.token_forecasting import TokenForecastingModel
from hippodrome.shapes import SeriesBatch
from hippodrome.testing import models as contract
from hippodrome.train import weights
from hippodrome.train.optimizer import adamw

NAN = float("nan")
WIDTH = 8


def backbone() -> Stack:
    return Stack([Block(GRU(WIDTH)), Block(GRU(WIDTH))])


def forecaster(**options: object) -> TokenForecastingModel:
    given = {"channels": 2, "look_back": 12, "horizon": 4, "segment": 4, "quantiles": (), **options}
    return TokenForecastingModel(backbone(), **given).double().eval()  # type: ignore[arg-type]


def series(rows: int = 3, steps: int = 12) -> Tensor:
    return 5 + torch.randn(rows, steps, 2, dtype=torch.float64).cumsum(1)


def batch(horizon: int = 4) -> SeriesBatch:
    whole = series(steps=12 + horizon)
    return SeriesBatch(whole[:, :12], whole[:, 12:])


def test_a_prompt_is_the_segment_in_numbers_formatted_apart() -> None:
    values = [7.93768, -2.02105, 5.07981, 0.74619, 1.0]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    wanted = f"5 steps, mean {mean:.4f}, deviation {deviation:.4f}, change {values[-1] - values[0]:.4f}"
    segments = torch.tensor([values, [NAN] * 5, [NAN, 2.0, NAN, 5.0, NAN]], dtype=torch.float64)
    assert _prompts.prompts(segments) == [
        wanted,
        "5 steps, no values",
        "5 steps, mean 3.5000, deviation 1.5000, change 3.0000",
    ]
    assert set(wanted + "no values") <= set(_prompts.ALPHABET)


def test_a_token_changes_only_with_data_inside_its_segment() -> None:
    model = forecaster(prompts=True, fusion=0.0, frozen=True)
    x = series(1)
    mean, spread = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    read: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, given: read.append(given[0]))

    def tokens(values: Tensor) -> Tensor:
        read.clear()
        model._said(values, mean, spread, None, True)
        return read[-1]

    before = tokens(x)
    x[0, 6, 1] += 3  # the second segment of the second variate
    changed = (tokens(x) != before).any(-1)
    assert changed.tolist() == [[False, False, False], [False, True, False]]


def test_a_share_of_one_is_the_model_without_prompts_exactly() -> None:
    plain, x = forecaster(frozen=True), series()
    told = forecaster(prompts=True, fusion=1.0, frozen=True)
    half = forecaster(prompts=True, frozen=True)
    for model in (told, half):
        weights.start(model, plain.state_dict())
    with torch.no_grad():
        assert float(half.share) == 0.5
        assert torch.equal(told(x)[0], plain(x)[0])
        assert not torch.allclose(half(x)[0], plain(x)[0])


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_frozen_has_no_gradient_and_keeps_its_bits(frozen: bool) -> None:
    model = forecaster(prompts=True, frozen=frozen, experts=2).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = adamw(model, 0.1, 0.1, (0.9, 0.99))
    for _ in range(2):
        model.loss(batch()).backward()
        optimizer.step()
    still = ("embedding.", "backbone." if frozen else "reader.")
    assert any(name.startswith(still[1]) for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(still):
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name
        else:
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("frozen", [True, False])
def test_the_contract_holds_with_a_language_model_inside(frozen: bool) -> None:
    model = contract.prepared(forecaster(prompts=True, frozen=frozen, horizon=7, quantiles=(0.1, 0.9)))
    wide = batch(7)
    for check in (
        contract.check_metrics,
        contract.check_stream,
        contract.check_resets,
        contract.check_files,
    ):
        check(model, wide)
    contract.check_groups(model)


def test_a_longer_forecast_is_shorter_ones_chained() -> None:
    options = {"prompts": True, "frozen": True, "look_back": 10, "location": [1.0, 2.0], "scale": [3.0, 0.5]}
    short, long = forecaster(**options), forecaster(**options, horizon=10)
    weights.start(long, short.state_dict())
    whole = window = series(steps=10)
    parts = []
    for _ in range(3):
        parts.append(short(window)[0][..., 0])
        window = torch.cat([window[:, 4:], parts[-1]], 1)
    joined = torch.cat(parts, 1)[:, :10]
    torch.testing.assert_close(long(whole)[0][..., 0], joined, rtol=1e-9, atol=1e-9)


def test_every_segment_is_trained_to_foretell_the_next() -> None:
    model = forecaster(horizon=6, location=[1.0, 2.0], scale=[3.0, 0.5])
    given = batch(6)
    given.past[0, 5, 1] = NAN
    errors = []
    for row in range(3):
        past = given.past[row]
        scaled = (past - model.location) / model.scale
        for c in range(2):
            column = scaled[:, c]
            seen = column[~column.isnan()]
            mean, spread = seen.mean(), (seen.var(correction=0) + 1e-5).sqrt()
            normal = ((column - mean) / spread).nan_to_num(nan=0.0)
            ahead = ((given.future[row, :4] - model.location) / model.scale)[:, c]
            wanted = torch.cat([column[4:], ahead])
            hidden = model.backbone(model.segments(normal.view(1, 3, 4)))[0]
            said = (model.point(hidden @ model.experts.weight[0].T).flatten() * spread + mean) - wanted
            errors.append(said[~said.isnan()])
    joined = torch.cat(errors)
    assert len(joined) == 3 * 2 * 12 - 1
    torch.testing.assert_close(model.loss(given), joined.square().mean(), rtol=1e-9, atol=1e-12)


def test_features_of_texts_are_read_once_while_the_weights_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = forecaster(prompts=True, frozen=True), series()
    read: list[int] = []
    honest = _prompts.read_last
    monkeypatch.setattr(
        _prompts, "read_last", lambda f, texts, *rest: read.append(len(texts)) or honest(f, texts, *rest)
    )
    with torch.inference_mode():
        first, _ = model(x)
    again, _ = model(x)
    assert read == [18]
    torch.testing.assert_close(again, first.clone(), rtol=1e-12, atol=0)
    model.loss(SeriesBatch(x, x[:, :4])).backward()  # what inference mode left can be read in training
    x[0, 0, 0] += 1
    model(x)
    assert read == [18, 1]
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.1)
    changed, _ = model(x)
    assert read == [18, 1, 18]
    torch.testing.assert_close(copy.deepcopy(model)(x)[0], changed, rtol=1e-12, atol=0)
    monkeypatch.setattr(_prompts, "MOST_BYTES", 5 * WIDTH * 8)
    small = copy.deepcopy(model)
    for _ in range(3):
        torch.testing.assert_close(small(x)[0], changed, rtol=1e-12, atol=0)
    assert len(small.features) == 5


def test_a_language_model_comes_in_whole_and_reads_the_prompts() -> None:
    stack = {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "gru", "d_model": WIDTH}}]}
    spec = validate({"kind": "language", "vocab_size": 256, "backbone": stack, "embedding_scale": 3.0})
    language: LanguageModel = build(spec).eval()
    tokenizer = byte_tokenizer()
    text = "4 steps, mean -2.0000, deviation 0.5000, change 1.0000"
    with torch.no_grad():
        wanted, _ = language.features(torch.tensor([tokenizer.encode(text).ids]))
    for frozen in (True, False):
        settings = language_settings(spec, tokenizer, frozen=frozen)
        sizes = {"channels": 1, "look_back": 8, "horizon": 4, "segment": 4}
        model: TokenForecastingModel = build(validate({**sizes, **settings})).eval()
        assert (model.reader is None) is frozen
        weights.start(model, language_tensors(language, settings))
        segment = torch.tensor([[[[-2.5, -2.5, -1.5, -1.5]]]])
        torch.testing.assert_close(model._text(segment)[0, 0, 0], wanted[0, -1])
        for name, tensor in language.backbone.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[name], tensor)
    plain = language_settings(spec, tokenizer, prompts=False)
    assert language_tensors(language, plain).keys() == {
        f"backbone.{n}" for n in language.backbone.state_dict()
    }


def test_prompts_are_spelt_by_the_tokenizer_of_the_language_model() -> None:
    pairs = train_tokenizer("mean 10.0000, deviation 10.0000 " * 50, 300)
    spelling = _prompts.spelling_of(lambda text: pairs.encode(text).ids)
    assert pairs.decode(spelling) == _prompts.ALPHABET
    assert _prompts.spelt(None, 256) == {letter: ord(letter) for letter in _prompts.ALPHABET}
    with pytest.raises(ValueError, match="a token for each character, and this tokenizer makes 2 of ' '"):
        _prompts.spelling_of(lambda text: [1, 2])
    with pytest.raises(ValueError, match="a token id below 40 for each of the 30 characters"):
        forecaster(prompts=True, vocab_size=40)


def test_what_it_cannot_read_is_refused_in_a_sentence() -> None:
    model, x = forecaster(), series()
    rounded = LanguageModel.example()
    rounded.register_buffer("codes", torch.zeros(1, dtype=torch.int8))
    for message, call in (
        ("reads look_back=12 steps, or more by a multiple of segment=4; got 10", lambda: model(x[:, :10])),
        ("neither resets nor dt", lambda: model(x, dt=torch.ones(3, 12).double())),
        ("no covariates; got 3 columns", lambda: model(torch.cat([x, x[..., :1]], -1))),
        ("multiples of segment=4 steps; got 2", lambda: model(x[:, :2], model(x)[1])),
        ("inside the look-back of 12; got 13", lambda: forecaster(segment=13)),
        ("fusion is the share .* got 0.5 and no prompts", lambda: forecaster(fusion=0.5)),
        ("a share from 0 to 1; got 2", lambda: forecaster(fusion=2.0, prompts=True)),
        ("language model; got a model of kind 'video'", lambda: language_settings({"kind": "video"}, None)),
        ("has its weights in int8", lambda: language_tensors(rounded, {"prompts": False})),
        ("Take the recipe smetimes", lambda: with_language({"kind": "forecasting"}, rounded, {}, None)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_without_a_language_model_it_learns_a_season() -> None:
    steps = torch.arange(400)
    wave = torch.sin(steps * 2 * torch.pi / 8)[:, None] * torch.tensor([1.0, -3.0])
    windows = wave.unfold(0, 24, 1).transpose(1, 2)
    model = TokenForecastingModel(backbone(), 2, 16, 8, quantiles=(), segment=4, experts=2)
    given = SeriesBatch(windows[:, :16], windows[:, 16:])
    optimizer = adamw(model, 0.03, 0.0, (0.9, 0.99))
    for _ in range(50):
        optimizer.zero_grad()
        model.loss(given).backward()
        optimizer.step()
    zero = float(given.future.square().mean())
    assert model.eval().metrics(given)["mse"].value < 0.05 * zero

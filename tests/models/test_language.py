"""What is peculiar to the language model: published sizes, the head in chunks, bits per byte, its start."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.models import _cross_entropy
from hippodrome.models._cross_entropy import linear_cross_entropy, score
from hippodrome.models.language import LanguageModel
from hippodrome.shapes import TokenBatch


def language(mixer: Callable[[int], torch.nn.Module], d_model: int, depth: int, vocab: int) -> LanguageModel:
    return LanguageModel(Stack([Block(mixer(d_model)) for _ in range(depth)]), vocab)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mixer", "d_model", "depth", "vocab", "count"),
    [
        (Mamba, 768, 24, 50280, 129_135_360),
        (Mamba, 1024, 48, 50280, 371_516_416),
        (Mamba, 2560, 64, 50280, 2_768_345_600),
        (Mamba2, 768, 24, 50288, 128_989_632),
        (Mamba2, 1024, 48, 50288, 368_346_624),
        (Mamba2, 2560, 64, 50288, 2_702_599_680),
    ],
)
def test_published_parameter_counts(
    mixer: type[Mamba] | type[Mamba2], d_model: int, depth: int, vocab: int, count: int
) -> None:
    with torch.device("meta"):
        model = language(mixer, d_model, depth, vocab)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def head_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(23, 5, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, generator=g, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (23,), generator=g)
    targets[::4] = -100
    return x, weight, targets


@pytest.mark.parametrize("elements", [1, 40, 10_000])
def test_chunked_head_is_exact(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cross_entropy, "_BYTES", 8 * elements)
    x, weight, targets = head_case()
    ours, plain = linear_cross_entropy(x, weight, targets), functional.cross_entropy(x @ weight.T, targets)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        torch.autograd.grad(3 * ours, (x, weight)), torch.autograd.grad(3 * plain, (x, weight)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    found = score(x, weight, targets)
    torch.testing.assert_close(found.nats / found.rows, plain.detach(), rtol=1e-12, atol=0)
    assert int(found.correct) == int(((x @ weight.T).argmax(1) == targets).sum())


@pytest.mark.parametrize("elements", [40, 10_000])
def test_chunked_head_with_a_cap_is_exact(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cross_entropy, "_BYTES", 8 * elements)
    x, weight, targets = head_case()
    bounded = 1.5 * torch.tanh(x @ weight.T / 1.5)
    ours, plain = (
        linear_cross_entropy(x, weight, targets, 1.5),
        functional.cross_entropy(bounded, targets),
    )
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        torch.autograd.grad(3 * ours, (x, weight)), torch.autograd.grad(3 * plain, (x, weight)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradgradcheck(
        lambda x, weight: linear_cross_entropy(x, weight, targets[:6], 1.5),
        (x[:6].detach().requires_grad_(), weight.detach().requires_grad_()),
    )
    found = score(x, weight, targets, 1.5)
    torch.testing.assert_close(found.nats / found.rows, plain.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("tie", [True, False])
def test_scales_and_cap_are_what_they_say(tie: bool) -> None:
    scales = {"embedding_scale": 3.0, "logit_scale": 2.0, "logit_cap": 0.5}
    model = LanguageModel(Stack([Block(MinGRU(8))]), 11, tie, **scales).double()
    torch.nn.init.normal_(model.embedding.weight)
    tokens = torch.randint(11, (2, 7))
    inside, _ = model.backbone(3 * model.embedding(tokens))
    expected = 0.5 * torch.tanh(2 * inside @ model.head_weight.T / 0.5)
    torch.testing.assert_close(model(tokens)[0], expected)
    torch.testing.assert_close(model.last(tokens)[0], expected[:, -1])
    state, own = model.init_state(2), model.init_state(2)
    for t in range(7):
        y, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(y, expected[:, t])
        torch.testing.assert_close(model.advance_(tokens[:, t], own), expected[:, t])
    batch = TokenBatch(tokens[:, :-1], tokens[:, 1:])
    wanted = functional.cross_entropy(expected[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(model.loss(batch), wanted)
    total, count = model.metrics(batch)["nats"]
    torch.testing.assert_close(total / count, wanted.detach())


def test_a_cap_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero; got 0"):
        LanguageModel(Stack([Block(MinGRU(8))]), 11, logit_cap=0.0)


def test_chunked_head_differentiates_twice() -> None:
    x, weight, targets = head_case()
    assert torch.autograd.gradcheck(lambda a, b: linear_cross_entropy(a, b, targets), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: linear_cross_entropy(a, b, targets), (x, weight))


def test_chunked_head_without_a_target_is_zero() -> None:
    x, weight, targets = head_case()
    loss = linear_cross_entropy(x, weight, torch.full_like(targets, -100))
    assert float(loss) == 0
    assert all(bool((grad == 0).all()) for grad in torch.autograd.grad(loss, (x, weight)))


def test_chunked_head_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cross_entropy, "_BYTES", 4 * 8 * 1000)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    x, weight = torch.randn(64, 4, requires_grad=True), torch.randn(1000, 4, requires_grad=True)
    with Watch():
        linear_cross_entropy(x, weight, torch.randint(1000, (64,))).backward()
    assert largest <= 8 * 1000


@pytest.mark.parametrize("rows", [64, 20, 1])
def test_head_runs_in_the_autocast_type_and_sums_in_float32(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cross_entropy, "_BYTES", rows * 50 * 2)  # all rows at once, and in chunks
    monkeypatch.setattr(_cross_entropy, "_ROWS", 7)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 16, generator=g, requires_grad=True)
    weight = torch.randn(50, 16, generator=g, requires_grad=True)
    targets = torch.randint(50, (64,), generator=g)
    exact = functional.cross_entropy(x @ weight.T, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x, weight, targets)
        found = score(x, weight, targets)
    assert loss.dtype == torch.float32
    assert abs(float(loss - exact)) < 0.02 * float(exact)
    assert float(found.nats / 64) == pytest.approx(float(loss), rel=1e-6)
    grads = zip(torch.autograd.grad(loss, (x, weight)), torch.autograd.grad(exact, (x, weight)), strict=True)
    for mine, theirs in grads:
        assert mine.dtype == torch.float32
        assert float((mine - theirs).abs().max()) < 0.05 * float(theirs.abs().max())


def test_gradients_of_the_head_are_the_same_when_asked_for_again() -> None:
    x, weight, targets = head_case()
    loss = linear_cross_entropy(x, weight, targets)
    first = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    for mine, again in zip(first, torch.autograd.grad(2 * loss, (x, weight)), strict=True):
        torch.testing.assert_close(again, 2 * mine, rtol=1e-12, atol=0)


def test_a_frozen_head_costs_and_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, head = torch.randn(6, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    targets = torch.tensor([0, 3, -100, 8, 1, 2])
    found = []
    for frozen in (False, True):
        inputs = x.clone().requires_grad_()
        weight = head.clone().requires_grad_(not frozen)
        if frozen:
            monkeypatch.setattr(_cross_entropy, "_added", None)
        (2 * linear_cross_entropy(inputs, weight, targets)).backward()
        assert (weight.grad is None) == frozen
        found.append(inputs.grad)
    assert torch.equal(*found)


def test_loss_is_the_cross_entropy_of_the_logits() -> None:
    model, batch = LanguageModel.example().double(), LanguageModel.example_batch()
    logits, _ = model(batch.tokens)
    plain = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    torch.testing.assert_close(model.loss(batch), plain, rtol=1e-12, atol=0)


def test_a_tied_table_gets_both_gradients_in_one_dense_tensor() -> None:
    model, batch = LanguageModel.example().double(), LanguageModel.example_batch()
    table = model.embedding.weight
    logits, _ = model(batch.tokens)
    plain = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    (expected,) = torch.autograd.grad(plain, table)
    loss = model.loss(batch)
    for _ in range(2):
        (found,) = torch.autograd.grad(loss, table, retain_graph=True)
        assert found.layout == torch.strided
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    model.loss(batch).backward()
    (2 * model.loss(batch)).backward()
    torch.testing.assert_close(table.grad, 3 * expected, rtol=1e-9, atol=1e-12)


def test_the_loss_of_a_tied_model_differentiates_twice() -> None:
    model, batch = LanguageModel.example().double(), LanguageModel.example_batch()
    table = model.embedding.weight
    logits, _ = model(batch.tokens)
    plain = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    seconds = []
    for loss in (plain, model.loss(batch)):
        (first,) = torch.autograd.grad(loss, table, create_graph=True)
        seconds.append(torch.autograd.grad((first**2).sum(), table)[0])
    torch.testing.assert_close(seconds[1], seconds[0], rtol=1e-8, atol=1e-12)


def test_an_embedding_with_a_hook_is_called() -> None:
    model, batch, seen = LanguageModel.example(), LanguageModel.example_batch(), []
    model.embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    model.loss(batch).backward()
    assert seen == [(*batch.tokens.shape, model.embedding.embedding_dim)]


def test_bfloat16_autocast_stays_finite_over_steps_with_large_activations() -> None:
    for mixer in (Mamba, Mamba2):
        torch.manual_seed(0)
        model = language(mixer, 32, 2, 64)
        with torch.no_grad():
            model.embedding.weight.mul_(1e4)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
        tokens = torch.randint(64, (2, 65))
        for _ in range(5):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model.loss(TokenBatch(tokens[:, :-1], tokens[:, 1:]))
            loss.backward()
            assert bool(loss.isfinite())
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.dtype == torch.float32, name
                assert bool(parameter.grad.isfinite().all()), name
            optimizer.step()
            optimizer.zero_grad()


def test_packed_documents_do_not_see_each_other() -> None:
    model = LanguageModel.example().double()
    tokens = torch.randint(11, (1, 9))
    resets = torch.zeros(1, 9, dtype=torch.bool)
    resets[0, 4] = True
    packed, _ = model(tokens, resets=resets)
    alone, _ = model(tokens[:, 4:])
    torch.testing.assert_close(packed[:, 4:], alone, rtol=1e-9, atol=1e-12)


def test_bits_per_byte_counts_the_bytes_of_the_targets() -> None:
    batch = TokenBatch(torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, -100]]))
    backbone = Stack([Block(MinGRU(8))])
    plain = LanguageModel(backbone, 3).double().metrics(batch)
    table = LanguageModel(backbone, 3, bytes_per_token=[7, 1, 4]).double()
    table.load_state_dict(LanguageModel(backbone, 3).state_dict(), strict=True)
    found = table.metrics(batch)
    assert found["bits_per_byte"].count == 5
    assert found["bits_per_byte"].value == pytest.approx(found["nats"].value * 2 / 5 / math.log(2))
    assert plain["bits_per_byte"].value == pytest.approx(plain["nats"].value / math.log(2))
    ratio = LanguageModel(backbone, 3, bytes_per_token=2.5).double().metrics(batch)
    neither = LanguageModel(Stack.example(), 3, bytes_per_token=None).metrics(batch)
    assert set(neither) == {"nats", "accuracy"}
    assert ratio["bits_per_byte"].value == pytest.approx(ratio["nats"].value / math.log(2) / 2.5)


def test_starts_near_the_uniform_guess() -> None:
    model = language(Mamba, 64, 2, 256)
    assert float(model.embedding.weight.std()) == pytest.approx(0.02, rel=0.05)
    tokens = torch.randint(256, (2, 33))
    loss = float(model.loss(TokenBatch(tokens[:, :-1], tokens[:, 1:])))
    assert loss == pytest.approx(math.log(256), rel=0.05)


def test_untied_head_is_a_matrix_of_its_own() -> None:
    model = LanguageModel(Stack.example(), 11, tie=False)
    assert {"embedding.weight", "head.weight"} <= set(dict(model.named_parameters()))
    assert "head.weight" not in dict(LanguageModel.example().named_parameters())


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a number for each of the 3 token ids; it has 2"):
        LanguageModel(Stack.example(), 3, bytes_per_token=[1, 1])
    backbone = Stack.example()
    backbone.causal = False
    with pytest.raises(ValueError, match=r"must be causal.*masked_language"):
        LanguageModel(backbone, 3)

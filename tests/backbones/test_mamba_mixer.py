"""MambaMixer: special cases of its averages, channel mixers as token mixers of the transpose, refusals."""

import pytest
import torch
from torch import Tensor

from hippodrome import config
from hippodrome.backbones._averages import Averages, order_of
from hippodrome.backbones.mamba_mixer import MambaMixer


def made(pattern: str = "mamba_mixer:bi-mamba", depth: int = 2, length: int = 7, **options) -> MambaMixer:
    torch.manual_seed(0)
    given = {"mamba_mixer": {"sizes": [length], **options}}
    if "-mamba" in pattern:
        given["mamba"] = {"d_state": 2}
    model = config.build(config.stack_spec(pattern, 6, depth, options=given), "backbones").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def values(length: int = 7) -> Tensor:
    return torch.randn(2, length, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_order_spreads_channel_mixers_evenly() -> None:
    t, c = False, True
    assert order_of(2, 2, "x") == [t, c, t, c]
    assert order_of(6, 3, "x") == [t, t, c, t, t, c, t, t, c]
    assert order_of(2, 1, "x") == [t, t, c]
    assert order_of(2, 0, "x") == [t, t]
    with pytest.raises(ValueError, match="at most one channel mixer behind each"):
        order_of(2, 3, "x")


def test_without_channel_mixers_and_with_the_last_output_alone_it_is_a_chain() -> None:
    averages = Averages([False] * 4).double()
    with torch.no_grad():
        for weights in averages.parameters():
            weights.zero_()
        for weights in averages.of_tokens:  # alpha of the last output is 1
            weights[-1] = 1
    layers = [torch.nn.Linear(6, 6).double() for _ in range(4)]
    x = values()
    expected = x
    for layer in layers:
        expected = layer(expected).tanh()
    found = averages(x, lambda i, x: layers[i](x).tanh())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_at_the_start_it_is_a_network_of_residual_branches() -> None:
    order = order_of(3, 2, "x")
    layers = [torch.nn.Linear(6, 6).double() for _ in order]
    expected = x = values()
    for layer in layers:
        expected = expected + layer(expected).tanh()
    found = Averages(order).double()(x, lambda i, x: layers[i](x).tanh())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_weights_are_those_of_the_paper() -> None:
    """x_tok reads both kinds up to the layer before, x_ch the token mixer of its own layer too."""
    averages = Averages(order_of(2, 2, "x")).double()
    with torch.no_grad():
        for weights in averages.parameters():
            weights.normal_()
    (alpha1, theta1, alpha2, theta2, _), (beta1, gamma1, beta2, gamma2, _) = (
        averages.of_tokens,
        averages.of_channels,
    )
    seen: list[Tensor] = []

    def layer(i: int, x: Tensor) -> Tensor:
        seen.append(x)
        return (i + 2.0) * x.tanh()

    x = values()
    averages(x, layer)
    tok1, ch1, tok2 = (layer(i, seen[i]) for i in range(3))
    torch.testing.assert_close(seen[0], alpha1[0] * x + beta1[0] * x)
    torch.testing.assert_close(seen[1], theta1[0] * x + theta1[1] * tok1 + gamma1[0] * x)
    torch.testing.assert_close(seen[2], alpha2[0] * x + alpha2[1] * tok1 + beta2[0] * x + beta2[1] * ch1)
    torch.testing.assert_close(
        seen[3], theta2[0] * x + theta2[1] * tok1 + theta2[2] * tok2 + gamma2[0] * x + gamma2[1] * ch1
    )


def test_a_channel_mixer_is_the_token_mixer_of_the_transpose() -> None:
    model = made()
    x = values()
    torch.testing.assert_close(model.mixed(1, x), model.channels[0](x.mT)[0].mT)
    # Of a square row both kinds have the same shape, so one can do the other's work.
    square = made(length=6)
    square.channels[0].load_state_dict(square.tokens[0].state_dict())
    x = values(6)
    torch.testing.assert_close(square.mixed(1, x.mT), square.mixed(0, x).mT, rtol=1e-12, atol=1e-14)


def test_equal_directions_flip_with_the_channels() -> None:
    model = made()
    mixer = model.channels[0]
    mixer.back.load_state_dict(mixer.ahead.state_dict())
    x = values()
    flipped, plain = model.mixed(1, x.flip(2)).flip(2), model.mixed(1, x)
    torch.testing.assert_close(flipped, plain, rtol=1e-12, atol=1e-14)
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(model.mixed(1, x[..., order]), plain[..., order])


@pytest.mark.parametrize("pattern", ["mamba_mixer:bi-mamba", "mamba_mixer:s4d+attention:bi-min_gru"])
def test_every_weight_of_every_layer_gets_a_gradient(pattern: str) -> None:
    model = made(pattern, depth=4, every=2)
    assert len(model.channels) == 2
    y, state = model(values())
    assert y.shape == (2, 7, 6)
    assert state == ()
    y.square().mul(torch.arange(6)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name
    assert bool(all((w.grad != 0).all() for w in model.averages.parameters()))
    grouped = [id(p) for group in model.parameter_groups() for p in group.parameters]
    assert len(grouped) == len(set(grouped))


def test_it_runs_inside_a_classifier_from_a_pattern() -> None:
    backbone = config.stack_spec("mamba_mixer:bi-mamba", 8, 1, options={"mamba_mixer": {"sizes": [3, 4]}})
    spec = {"kind": "classification", "classes": ["a", "b"], "channels": 2, "backbone": backbone}
    model = config.build(spec)
    logits = model.logits(torch.randn(3, 12, 2), torch.full((3,), 12))
    assert logits.shape == (3, 2)
    assert bool(logits.isfinite().all())


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    model = made()
    with pytest.raises(ValueError, match="rows of 7 tokens"):
        model(values(8))
    with pytest.raises(ValueError, match="neither a state nor a step"):
        model.step(values()[:, 0], ())
    with pytest.raises(ValueError, match="neither a state nor a step"):
        model.init_state(2)
    with pytest.raises(ValueError, match="no resets or dt; got 7 tokens and resets"):
        model(values(), resets=torch.zeros(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"sizes=\[tokens\]"):
        config.stack_spec("mamba_mixer:bi-mamba", 6, 2)
    with pytest.raises(ValueError, match="options sizes and every"):
        made(length=7, evry=2)
    with pytest.raises(ValueError, match="width"):
        MambaMixer(list(model.tokens), list(model.channels), [9])

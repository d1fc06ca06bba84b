"""Blocks and stacks: residuals written out, states, resets, recomputation, refusals."""

import copy

import pytest
import torch

from hippodrome import config
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.mlp import GatedMLP
from hippodrome.layers.norm import RMSNorm
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.rg_lru import RGLRU
from hippodrome.testing.mixers import assert_equal


def hybrid() -> Stack:
    blocks = [
        Block(Mamba(8, d_state=4)),
        Block(Attention(8, heads=2, window=3), GatedMLP(8), norm="layer"),
        Block(GRU(8)),
        Block(Attention(8, heads=2), GatedMLP(8)),
    ]
    return Stack(blocks).double().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 9, 8, dtype=torch.float64)


def test_a_block_is_its_residuals(x: torch.Tensor) -> None:
    block = Block(MinGRU(8), GatedMLP(8)).double()
    between = x + block.mixer(block.norm(x))[0]
    expected = between + block.mlp(block.mlp_norm(between))
    torch.testing.assert_close(block(x)[0], expected)


def test_a_stack_is_its_blocks_and_a_norm(x: torch.Tensor) -> None:
    stack = hybrid()
    y = x
    for block in stack.blocks:
        y, _ = block(y)
    torch.testing.assert_close(stack(x)[0], stack.norm(y))
    assert isinstance(stack.norm, RMSNorm)
    bare = Stack([Block(GRU(8))], norm=False).double()
    torch.testing.assert_close(bare(x)[0], bare.blocks[0](x)[0])


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_all_norms_of_a_stack_add_what_its_blocks_say(norm: str) -> None:
    spec = config.stack_spec("min_gru", 8, 2, norm=norm, norm_eps=0.5)
    stack = config.build(spec, "backbones")
    norms = [stack.norm, *(n for block in stack.blocks for n in (block.norm, block.mlp_norm))]
    assert [n.eps for n in norms] == [0.5] * 5
    x = torch.randn(3, 8)
    mean = x.mean(-1, keepdim=True) if norm == "layer" else 0.0
    size = ((x - mean) ** 2).mean(-1, keepdim=True) + 0.5
    torch.testing.assert_close(stack.norm(x), (x - mean) / size.sqrt())


@torch.no_grad()
def test_steps_chunks_and_resets_equal_the_whole(x: torch.Tensor) -> None:
    stack = hybrid()
    resets = torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 4] = resets[1, 0] = resets[1, 7] = True
    y, last = stack(x, resets=resets)
    assert len(last) == 4
    first, state = stack(x[:, :5], resets=resets[:, :5])
    second, _ = stack(x[:, 5:], state, resets=resets[:, 5:])
    assert_equal(torch.cat([first, second], 1), y, "chunks")
    state, own = stack.init_state(2, 9), stack.init_state(2, 9)
    for t in range(9):
        state, own = stack.reset_rows(state, resets[:, t]), stack.reset_rows(own, resets[:, t])
        y_t, state = stack.step(x[:, t], state)
        assert_equal(y_t, y[:, t], f"step {t}")
        assert_equal(stack.advance_(x[:, t], own), y[:, t], f"advance_ {t}")


@torch.no_grad()
def test_branches_may_be_scaled(x: torch.Tensor) -> None:
    block = Block(MinGRU(8), GatedMLP(8), scale=0.25).double().eval()
    middle = x + 0.25 * block.mixer(block.norm(x))[0]
    expected = middle + 0.25 * block.mlp(block.mlp_norm(middle))
    torch.testing.assert_close(block(x)[0], expected)
    state, own = block.init_state(2), block.init_state(2)
    torch.testing.assert_close(block.step(x[:, 0], state)[0], expected[:, 0])
    torch.testing.assert_close(block.advance_(x[:, 0], own), expected[:, 0])


def test_dt_reaches_every_mixer_or_is_refused(x: torch.Tensor) -> None:
    dt = torch.full((2, 9), 2.0, dtype=torch.float64)
    stack = Stack([Block(Mamba(8, d_state=4)), Block(RGLRU(8))]).double()
    assert not torch.allclose(stack(x, dt=dt)[0], stack(x)[0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"Attention has no continuous time.*\."):
        hybrid()(x, dt=dt)


def test_recomputing_gives_the_same_gradients(x: torch.Tensor) -> None:
    stack = hybrid()
    other = copy.deepcopy(stack)
    other.recompute = True
    state = stack.init_state(2)
    for module in (stack, other):
        y, last = module(x, state)
        (y.sum() + last[0].h.sum()).backward()
    for (name, mine), theirs in zip(stack.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_recomputing_under_autocast_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    stack = Stack([Block(Mamba(16, d_state=4)), Block(MinGRU(16), GatedMLP(16), dropout=0.3)])
    other = copy.deepcopy(stack)
    other.recompute = True
    x, seen = torch.randn(2, 40, 16), []
    for module in (stack, other):
        torch.manual_seed(1)  # dropout draws the same numbers again where the block runs again
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = module(leaf)
        y.square().sum().backward()
        seen.append([y, leaf.grad, *(p.grad for p in module.parameters())])
    for mine, theirs in zip(*seen, strict=True):
        assert torch.equal(mine, theirs)


def test_writers_into_the_residual_stream_shrink_with_depth() -> None:
    torch.manual_seed(0)
    block = Block(MinGRU(8), GatedMLP(8))
    out, fc2, fc1 = (w.weight.clone() for w in (block.mixer.out_proj, block.mlp.fc2, block.mlp.fc1))
    Stack([block, Block(MinGRU(8), GatedMLP(8))])
    torch.testing.assert_close(block.mixer.out_proj.weight, out / 2)
    torch.testing.assert_close(block.mlp.fc2.weight, fc2 / 2)
    assert torch.equal(block.mlp.fc1.weight, fc1)


def test_groups_are_those_of_the_mixers() -> None:
    stack = Stack([Block(Mamba(8, d_state=4)), Block(GRU(8)), Block(RGLRU(8))])
    grouped = {id(p) for group in stack.parameter_groups() for p in group.parameters}
    names = {name for name, p in stack.named_parameters() if id(p) in grouped}
    assert names == {
        "blocks.0.mixer.A_log",
        "blocks.0.mixer.D",
        "blocks.0.mixer.dt_proj.bias",
        "blocks.2.mixer.Lambda",
    }


def test_dropout_acts_in_training_alone(x: torch.Tensor) -> None:
    block = Block(GRU(8), GatedMLP(8), dropout=0.5).double()
    assert not torch.equal(block(x)[0], block(x)[0])
    block.eval()
    assert torch.equal(block(x)[0], block(x)[0])


def test_autocast_is_finite_and_keeps_the_stream_in_float32() -> None:
    stack = hybrid().float()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = stack(torch.randn(2, 9, 8))
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert state[0].h.dtype == torch.float32


def test_what_cannot_be_is_refused_with_a_sentence(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"at least one block, all of one width; got none\."):
        Stack([])
    with pytest.raises(ValueError, match=r"got widths \[4, 8\]\."):
        Stack([Block(GRU(8)), Block(GRU(4))])
    with pytest.raises(ValueError, match="stack of 4 blocks takes a tuple of as many states; got 2"):
        hybrid()(x, hybrid().init_state(2)[:2])


def test_examples_run() -> None:
    for example in (Block.example(), Stack.example()):
        y, _ = example(torch.randn(2, 3, example.d_model))
        assert y.shape == (2, 3, example.d_model)


@pytest.mark.compiled
def test_a_stack_compiles_whole() -> None:
    stack = Stack([Block(Mamba(8, d_state=4)), Block(Attention(8, heads=2), GatedMLP(8))])
    x = torch.randn(2, 5, 8)
    run = torch.compile(stack, fullgraph=True, backend="aot_eager")
    y, _ = run(x)
    torch.testing.assert_close(y, stack(x)[0])
    y.sum().backward()

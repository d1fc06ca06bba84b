"""Whole hybrids against the ``transformers`` package on the same random weights, copied over by hand."""

import pytest
import torch
from torch import Tensor, nn

from hippodrome import config
from hippodrome.models.language import LanguageModel

transformers = pytest.importorskip("transformers", reason="the hybrids are compared with transformers")

WORDS, WIDTH, TIMES = 23, 16, 19
COMMON = {"vocab_size": WORDS, "hidden_size": WIDTH, "rms_norm_eps": 1e-5, "use_cache": False}
LOW = 1e-3
"""The bound below step sizes that Zamba2 and Nemotron-H have there, and Bamba has not."""


def random_theirs(model: nn.Module) -> nn.Module:
    """Every weight moved, so that none is one or zero throughout."""
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.15 * torch.randn(p.shape, generator=numbers))
    return model.eval()


def ours(
    pattern: object, depth: int | None, options: dict, *, tie: bool = False, **given: object
) -> LanguageModel:
    stack = config.stack_spec(pattern, WIDTH, depth, options=options, **given)  # type: ignore[arg-type]
    return config.build({"kind": "language", "vocab_size": WORDS, "backbone": stack, "tie": tie}).eval()


def attention(mixer: nn.Module, theirs: nn.Module) -> None:
    joined = torch.cat([theirs.q_proj.weight, theirs.k_proj.weight, theirs.v_proj.weight])
    mixer.load_state_dict({"in_proj.weight": joined, "out_proj.weight": theirs.o_proj.weight})


def perceptron(mlp: nn.Module, theirs: nn.Module) -> None:
    joined = torch.cat([theirs.up_proj.weight, theirs.gate_proj.weight])
    mlp.load_state_dict({"fc1.weight": joined, "fc2.weight": theirs.down_proj.weight})


def routed(moe: nn.Module, theirs: nn.Module) -> None:
    gate, up = theirs.experts.gate_up_proj.chunk(2, 1)
    moe.load_state_dict(
        {
            "router.weight": theirs.router.weight,
            "fc1.weight": torch.cat([up, gate], 1),
            "fc2.weight": theirs.experts.down_proj,
        }
    )


def ends(
    mine: LanguageModel, theirs: nn.Module, embedding: nn.Module, norm: nn.Module, last: nn.Module
) -> None:
    with torch.no_grad():
        mine.embedding.weight.copy_(embedding.weight)
        last.weight.copy_(norm.weight)
        if mine.head is not None:
            mine.head.weight.copy_(theirs.lm_head.weight)


@torch.no_grad()
def agree(mine: LanguageModel, theirs: nn.Module) -> None:
    """One call of theirs, and of ours one call, chunks, and one token after the other."""
    ids = torch.randint(WORDS, (2, TIMES), generator=torch.Generator().manual_seed(2))
    expected: Tensor = theirs(input_ids=ids).logits
    assert expected.std() > 0.1

    def close(got: Tensor, where: slice = slice(None)) -> None:
        size = expected.abs().max()
        assert ((got - expected[:, where]).abs().max() / size) < 1e-5

    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    close(mine(ids)[0])
    first, state = mine(ids[:, :7])
    close(first, slice(0, 7))
    close(mine(ids[:, 7:], state)[0], slice(7, None))
    state = mine.init_state(2, TIMES)
    close(torch.stack([mine.advance_(ids[:, t], state) for t in range(TIMES)], 1))


def test_jamba() -> None:
    theirs = random_theirs(
        transformers.JambaForCausalLM(
            transformers.JambaConfig(
                **COMMON,
                intermediate_size=24,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                attn_layer_period=4,
                attn_layer_offset=2,
                num_experts=4,
                mamba_d_state=4,
                mamba_dt_rank=3,
            )
        )
    )
    options = {
        "mamba": {"d_state": 4, "dt_rank": 3, "norms": "learned", "norm_eps": 1e-5},
        "attention": {"heads": 4, "kv_heads": 2, "rope": False},
        "mlp": {"d_hidden": 24},
        "moe": {"d_hidden": 24, "experts": 4},
    }
    mine = ours(config.periodic(4, 4, 2), 8, options)
    with torch.no_grad():
        for i, layer in enumerate(theirs.model.layers):
            mixing, feeding = mine.backbone.blocks[2 * i], mine.backbone.blocks[2 * i + 1]
            mixing.norm.load_state_dict(layer.input_layernorm.state_dict())
            feeding.norm.load_state_dict(layer.pre_ff_layernorm.state_dict())
            if i == 2:
                attention(mixing.mixer, layer.self_attn)
            else:
                mixing.mixer.load_state_dict(layer.mamba.state_dict())
            if i % 2:
                routed(feeding.mixer.moe, layer.feed_forward)
            else:
                perceptron(feeding.mixer.mlp, layer.feed_forward)
    ends(mine, theirs, theirs.model.embed_tokens, theirs.model.final_layernorm, mine.backbone.norm)
    agree(mine, theirs)


def test_bamba() -> None:
    theirs = random_theirs(
        transformers.BambaForCausalLM(
            transformers.BambaConfig(
                **COMMON,
                intermediate_size=24,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                attn_layer_indices=[1],
                mamba_n_heads=4,
                mamba_d_state=5,
                mamba_n_groups=1,
                mamba_chunk_size=8,
                pad_token_id=None,
            )
        )
    )
    options = {
        "mamba2": {"d_state": 5, "head_dim": 8, "chunk": 8},
        "attention": {"heads": 4, "kv_heads": 2, "rope_share": 0.5},
    }
    mine = ours("mamba2+attention+mamba2", 3, options, mlp=True, d_hidden=24)
    with torch.no_grad():
        for block, layer in zip(mine.backbone.blocks, theirs.model.layers, strict=True):
            block.norm.load_state_dict(layer.input_layernorm.state_dict())
            block.mlp_norm.load_state_dict(layer.pre_ff_layernorm.state_dict())
            perceptron(block.mlp, layer.feed_forward)
            if hasattr(layer, "self_attn"):
                attention(block.mixer, layer.self_attn)
            else:
                block.mixer.load_state_dict(layer.mamba.state_dict())
    ends(mine, theirs, theirs.model.embed_tokens, theirs.model.final_layernorm, mine.backbone.norm)
    agree(mine, theirs)


def test_nemotron_h() -> None:
    common = {k: v for k, v in COMMON.items() if k != "rms_norm_eps"}
    theirs = random_theirs(
        transformers.NemotronHForCausalLM(
            transformers.NemotronHConfig(
                **common,
                hybrid_override_pattern="M-*-M",
                intermediate_size=24,
                num_attention_heads=3,
                num_key_value_heads=1,
                head_dim=8,
                ssm_state_size=6,
                mamba_num_heads=4,
                mamba_head_dim=8,
                n_groups=2,
                chunk_size=8,
            )
        )
    )
    options = {
        "mamba2": {"d_state": 6, "head_dim": 8, "groups": 2, "chunk": 8, "dt_low": LOW},
        "attention": {"heads": 3, "kv_heads": 1, "head_dim": 8, "rope": False},
        "mlp": {"d_hidden": 24, "gated": False},
    }
    mine = ours("M-*-M", None, options)
    with torch.no_grad():
        for symbol, block, layer in zip("M-*-M", mine.backbone.blocks, theirs.model.layers, strict=True):
            block.norm.load_state_dict(layer.norm.state_dict())
            if symbol == "M":
                block.mixer.load_state_dict(layer.mixer.state_dict())
            elif symbol == "*":
                attention(block.mixer, layer.mixer)
            else:
                block.mixer.mlp.fc1.weight.copy_(layer.mixer.up_proj.weight)
                block.mixer.mlp.fc2.weight.copy_(layer.mixer.down_proj.weight)
    ends(mine, theirs, theirs.model.embeddings, theirs.model.norm_f, mine.backbone.norm)
    agree(mine, theirs)


@pytest.mark.parametrize("rope", [False, True])
def test_zamba2(rope: bool) -> None:
    uses = [1, 2, 4]
    kinds = ["hybrid" if i in uses else "linear_attention" for i in range(5)]
    theirs = random_theirs(
        transformers.Zamba2ForCausalLM(
            transformers.Zamba2Config(
                **COMMON,
                num_hidden_layers=5,
                layers_block_type=kinds,
                mamba_d_state=5,
                n_mamba_heads=4,
                mamba_ngroups=2,
                chunk_size=8,
                intermediate_size=24,
                num_attention_heads=4,
                num_mem_blocks=2,
                adapter_rank=3,
                use_mem_rope=rope,
            )
        )
    )
    shared = {"uses": uses, "shared": 2, "heads": 4, "d_hidden": 24, "rank": 3, "rope": rope}
    options = {
        "mamba2": {"d_state": 5, "head_dim": 8, "groups": 2, "chunk": 8, "dt_low": LOW},
        "shared_attention": shared,
    }
    mine = ours("shared_attention:mamba2", 5, options, tie=True)
    body = mine.backbone
    with torch.no_grad():
        for i, (block, layer) in enumerate(zip(body.stack.blocks, theirs.model.layers, strict=True)):
            decoder = layer.mamba_decoder if i in uses else layer
            block.norm.load_state_dict(decoder.input_layernorm.state_dict())
            block.mixer.load_state_dict(decoder.mamba.state_dict())
            if i not in uses:
                continue
            use = uses.index(i)
            own, block, source = body.adapted[use], body.shared[use % 2], layer.shared_transformer
            own.linear.load_state_dict(layer.linear.state_dict())
            down, up = source.feed_forward.gate_up_proj_adapter_list[use]
            own.down.load_state_dict(down.state_dict())
            own.up.load_state_dict(up.state_dict())
            block.norm.load_state_dict(source.input_layernorm.state_dict())
            block.mlp_norm.load_state_dict(source.pre_ff_layernorm.state_dict())
            block.fc1.load_state_dict(source.feed_forward.gate_up_proj.state_dict())
            block.fc2.load_state_dict(source.feed_forward.down_proj.state_dict())
            heads = source.self_attn
            joined = torch.cat([heads.q_proj.weight, heads.k_proj.weight, heads.v_proj.weight])
            block.attention.load_state_dict({"in_proj.weight": joined})
            block.out.load_state_dict(heads.o_proj.state_dict())
    ends(mine, theirs, theirs.model.embed_tokens, theirs.model.final_layernorm, body.stack.norm)
    agree(mine, theirs)

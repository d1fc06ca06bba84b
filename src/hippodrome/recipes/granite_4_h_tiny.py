"""Granite 4.0 H Tiny: Mamba-2, four layers of attention without positions, and a mixture after each."""

from hippodrome.config import MAMBA2_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

COUNTED = "computed from copies of the released configuration, at second hand, as transformers builds it"
KINDS = ("weight", "bias")
THERE = "model.layers.{i}"
MAMBA, MAMBA_THERE = "backbone.blocks.{mamba_blocks[i]}.mixer", "model.layers.{mamba_layers[i]}.mamba"
ATTENTION, HEADS = (
    "backbone.blocks.{attention_blocks[i]}.mixer",
    "model.layers.{attention_layers[i]}.self_attn",
)
CHANNELS, EXPERTS = "backbone.blocks.{2i+1}", f"{THERE}.block_sparse_moe"
# Their gate comes first, ours last.
HALVES = ("[1/2]", "[0/2]")
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours="backbone.blocks.{2i}.norm.weight", theirs=[f"{THERE}.input_layernorm.weight"]),
    Rule(ours=f"{CHANNELS}.norm.weight", theirs=[f"{THERE}.post_attention_layernorm.weight"]),
    *[Rule(ours=f"{MAMBA}.{part}", theirs=[f"{MAMBA_THERE}.{part}"]) for part in MAMBA2_PARTS],
    *[
        Rule(
            ours=f"{ATTENTION}.in_proj.{kind}",
            theirs=[f"{HEADS}.{x}_proj.{kind}" for x in "qkv"],
            sizes="heads",
        )
        for kind in KINDS
    ],
    *[Rule(ours=f"{ATTENTION}.out_proj.{kind}", theirs=[f"{HEADS}.o_proj.{kind}"]) for kind in KINDS],
    *[
        rule
        for place in ("mlp", "moe.shared")
        for rule in (
            Rule(
                ours=f"{CHANNELS}.mixer.{place}.fc1.weight",
                theirs=[f"{THERE}.shared_mlp.input_linear.weight{half}" for half in HALVES],
            ),
            Rule(
                ours=f"{CHANNELS}.mixer.{place}.fc2.weight",
                theirs=[f"{THERE}.shared_mlp.output_linear.weight"],
            ),
        )
    ],
    Rule(ours=f"{CHANNELS}.mixer.moe.router.weight", theirs=[f"{EXPERTS}.router.layer.weight"]),
    Rule(
        ours=f"{CHANNELS}.mixer.moe.fc1.weight",
        theirs=[f"{EXPERTS}.input_linear.weight{half}" for half in HALVES],
        dim=1,
    ),
    Rule(ours=f"{CHANNELS}.mixer.moe.fc2.weight", theirs=[f"{EXPERTS}.output_linear.weight"]),
    Rule(ours="backbone.norm.weight", theirs=["model.norm.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="granite_4_h_tiny",
    title="Granite 4.0 H Tiny, 7 billion parameters of which a token uses 1",
    family="hybrid",
    citation="""
@misc{granite2025,
  title  = {Granite 4.0 Language Models},
  author = {{Granite Team, IBM}},
  year   = {2025},
  note   = {released model ibm-granite/granite-4.0-h-tiny}
}
""",
    model=RecipeModel(
        pattern=(
            "mamba2+moe+mamba2+moe+mamba2+moe+mamba2+moe+mamba2+moe+attention+moe"
            "+mamba2+moe+mamba2+moe+mamba2+moe+mamba2+moe"
        ),
        depth=80,
        d_model=1536,
        options={
            "mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 1, "chunk": 256},
            "attention": {"heads": 12, "kv_heads": 4, "head_dim": 128, "rope": False, "scale": 0.0078125},
            "moe": {
                "d_hidden": 512,
                "experts": 64,
                "active": 6,
                "renormalize": True,
                "shared": 1024,
                "balance": 0.0,
            },
        },
        scale=0.22,
        language={"embedding_scale": 12.0, "logit_scale": 1 / 6},
    ),
    claims=[
        Claim(
            task="language model, vocabulary 100352, head tied to the embedding",
            metric="parameters",
            value=6_939_037_248,
            source=COUNTED,
        ),
    ],
    notes=(
        "40 layers, each a mixer and a mixture with a perceptron beside it, are 80 names here; attention "
        "mixes in layers 5, 15, 25 and 35. Sizes and factors are those of public copies of the released "
        "configuration, at second hand. Branches are scaled by 0.22, embeddings by 12, scores by 1/128, "
        "logits by 1/6."
    ),
    layouts={"granitemoehybrid": Layout(rules=RULES, tied={"lm_head.weight": "model.embed_tokens.weight"})},
)

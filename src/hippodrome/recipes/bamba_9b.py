"""Bamba 9B: Mamba-2 with attention in three of 32 layers and a perceptron in each."""

from hippodrome.config import MAMBA2_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

KINDS = ("weight", "bias")
BLOCK, THEIRS = "backbone.blocks.{i}", "model.layers.{i}"
MAMBA, MAMBA_THERE = "backbone.blocks.{mamba[i]}.mixer", "model.layers.{mamba[i]}.mamba"
ATTENTION, HEADS = "backbone.blocks.{attention[i]}.mixer", "model.layers.{attention[i]}.self_attn"
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours=f"{BLOCK}.norm.weight", theirs=[f"{THEIRS}.input_layernorm.weight"]),
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
    Rule(ours=f"{BLOCK}.mlp_norm.weight", theirs=[f"{THEIRS}.pre_ff_layernorm.weight"]),
    *[
        Rule(
            ours=f"{BLOCK}.mlp.fc1.{kind}",
            theirs=[f"{THEIRS}.feed_forward.{x}_proj.{kind}" for x in ("up", "gate")],
        )
        for kind in KINDS
    ],
    *[
        Rule(ours=f"{BLOCK}.mlp.fc2.{kind}", theirs=[f"{THEIRS}.feed_forward.down_proj.{kind}"])
        for kind in KINDS
    ],
    Rule(ours="backbone.norm.weight", theirs=["model.final_layernorm.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="bamba_9b",
    title="Bamba 9B",
    family="hybrid",
    citation="""
@misc{bamba2024,
  title  = {Bamba: Inference-Efficient Hybrid Mamba2 Model},
  author = {{IBM, Princeton University, Carnegie Mellon University, University of Illinois}},
  year   = {2024},
  note   = {released model ibm-ai-platform/Bamba-9B}
}
""",
    model=RecipeModel(
        pattern="mamba2x9+attention+mamba2x8+attention+mamba2x8+attention+mamba2x4",
        depth=32,
        d_model=4096,
        options={
            "mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 1, "chunk": 256},
            "attention": {"heads": 32, "kv_heads": 8, "rope_share": 0.5},
        },
        mlp=True,
        d_hidden=14336,
        tie=False,
    ),
    claims=[
        Claim(
            task="language model, vocabulary 128000",
            metric="parameters",
            value=9_778_138_240,
            source="computed from the released configuration as transformers builds it",
        ),
    ],
    notes=(
        "The attention layers, 9, 18 and 27, are those of copies of the released configuration, at second "
        "hand. The default of the class in transformers has a state of 256; the released model has 128."
    ),
    layouts={"bamba": Layout(rules=RULES, tied={"lm_head.weight": "model.embed_tokens.weight"})},
)

"""Falcon-H1 0.5B: attention and Mamba-2 side by side in every layer, a perceptron after it."""

from hippodrome.config import MAMBA2_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

KINDS = ("weight", "bias")
THERE = "model.layers.{i}"
BOTH, CHANNELS = "backbone.blocks.{2i}", "backbone.blocks.{2i+1}"
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours=f"{BOTH}.norm.weight", theirs=[f"{THERE}.input_layernorm.weight"]),
    Rule(ours=f"{CHANNELS}.norm.weight", theirs=[f"{THERE}.pre_ff_layernorm.weight"]),
    *[Rule(ours=f"{BOTH}.mixer.mixers.0.{part}", theirs=[f"{THERE}.mamba.{part}"]) for part in MAMBA2_PARTS],
    *[
        rule
        for kind in KINDS
        for rule in (
            Rule(
                ours=f"{BOTH}.mixer.mixers.1.in_proj.{kind}",
                theirs=[f"{THERE}.self_attn.{x}_proj.{kind}" for x in "qkv"],
                sizes="heads",
            ),
            Rule(ours=f"{BOTH}.mixer.mixers.1.out_proj.{kind}", theirs=[f"{THERE}.self_attn.o_proj.{kind}"]),
            Rule(
                ours=f"{CHANNELS}.mixer.mlp.fc1.{kind}",
                theirs=[f"{THERE}.feed_forward.{x}_proj.{kind}" for x in ("up", "gate")],
            ),
            Rule(ours=f"{CHANNELS}.mixer.mlp.fc2.{kind}", theirs=[f"{THERE}.feed_forward.down_proj.{kind}"]),
        )
    ],
    Rule(ours="backbone.norm.weight", theirs=["model.final_layernorm.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="falcon_h1_0_5b",
    title="Falcon-H1 0.5B",
    family="hybrid",
    citation="""
@article{zuo2025falconh1,
  title   = {{Falcon-H1}: A Family of Hybrid-Head Language Models Redefining Efficiency and Performance},
  author  = {Zuo, Jingwei and Velikanov, Maksim and Chahed, Ilyas and Belkada, Younes and others},
  journal = {arXiv preprint arXiv:2507.22448},
  year    = {2025}
}
""",
    model=RecipeModel(
        pattern="mamba2-and-attention+mlp",
        depth=72,
        d_model=1024,
        options={
            "mamba2": {
                "d_inner": 1536,
                "d_state": 128,
                "taps": 4,
                "head_dim": 64,
                "groups": 1,
                "chunk": 128,
                "norm": False,
                "in_scales": [
                    0.44194173824159223,
                    0.3125,
                    0.44194173824159223,
                    0.625,
                    0.44194173824159223,
                ],
            },
            "attention": {
                "heads": 8,
                "kv_heads": 2,
                "head_dim": 64,
                "rope_base": 1e11,
                "scale": 0.048828125,
            },
            "parallel": {"scales": [0.23570226039551587, 0.9375]},
            "mlp": {"d_hidden": 2048, "gate_scale": 0.8838834764831844},
        },
        scale={"mlp": 0.5859375},
        tie=False,
        language={"embedding_scale": 5.656854249492381, "logit_scale": 0.0390625},
    ),
    claims=[
        Claim(
            task="language model, vocabulary 32784",
            metric="parameters",
            value=521_411_104,
            source=(
                "computed from the configuration that ml-explore/mlx-lm holds as its default, as "
                "transformers builds it"
            ),
        ),
    ],
    notes=(
        "36 layers, each a pair of mixers and a perceptron, are 72 names here. Sizes and factors are those "
        "that mlx-lm holds as its default, which are of this model, at second hand. The factor before "
        "Mamba-2, 1.25, is in those behind its first map; that of the keys, 0.390625, in the scale of the "
        "scores."
    ),
    layouts={"falcon_h1": Layout(rules=RULES, tied={"lm_head.weight": "model.embed_tokens.weight"})},
)

"""Jamba v0.1: Mamba, one attention layer in eight, and a mixture of experts in every second layer."""

from hippodrome.config import Claim, Layout, Recipe, RecipeModel, Rule, periodic

COUNTED = "computed from the authors' configuration (ai21labs/Jamba-v0.1) as transformers builds it"

MIXER = (
    "in_proj.weight",
    "in_proj.bias",
    "conv1d.weight",
    "conv1d.bias",
    "x_proj.weight",
    "dt_proj.weight",
    "dt_proj.bias",
    "A_log",
    "D",
    "dt_layernorm.weight",
    "b_layernorm.weight",
    "c_layernorm.weight",
    "out_proj.weight",
    "out_proj.bias",
)
MAMBA = "backbone.blocks.{mamba_blocks[i]}.mixer"
ATTENTION, HEADS = (
    "backbone.blocks.{attention_blocks[i]}.mixer",
    "model.layers.{attention_layers[i]}.self_attn",
)
CHANNELS, THEIRS = "backbone.blocks.{2i+1}", "model.layers.{i}"
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours="backbone.blocks.{2i}.norm.weight", theirs=[f"{THEIRS}.input_layernorm.weight"]),
    *[
        Rule(ours=f"{MAMBA}.{part}", theirs=[f"model.layers.{{mamba_layers[i]}}.mamba.{part}"])
        for part in MIXER
    ],
    Rule(
        ours=f"{ATTENTION}.in_proj.weight", theirs=[f"{HEADS}.{x}_proj.weight" for x in "qkv"], sizes="heads"
    ),
    Rule(ours=f"{ATTENTION}.out_proj.weight", theirs=[f"{HEADS}.o_proj.weight"]),
    Rule(ours=f"{CHANNELS}.norm.weight", theirs=[f"{THEIRS}.pre_ff_layernorm.weight"]),
    Rule(
        ours=f"{CHANNELS}.mixer.mlp.fc1.weight",
        theirs=[f"{THEIRS}.feed_forward.{x}_proj.weight" for x in ("up", "gate")],
    ),
    Rule(ours=f"{CHANNELS}.mixer.mlp.fc2.weight", theirs=[f"{THEIRS}.feed_forward.down_proj.weight"]),
    Rule(ours=f"{CHANNELS}.mixer.moe.router.weight", theirs=[f"{THEIRS}.feed_forward.router.weight"]),
    Rule(
        ours=f"{CHANNELS}.mixer.moe.fc1.weight",
        theirs=[f"{THEIRS}.feed_forward.experts.{{e}}.{x}_proj.weight" for x in ("up", "gate")],
        stack="e",
    ),
    Rule(
        ours=f"{CHANNELS}.mixer.moe.fc2.weight",
        theirs=[f"{THEIRS}.feed_forward.experts.{{e}}.down_proj.weight"],
        stack="e",
    ),
    Rule(ours="backbone.norm.weight", theirs=["model.final_layernorm.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="jamba_v0_1",
    title="Jamba v0.1, 52 billion parameters of which a token uses 12",
    family="hybrid",
    citation="""
@article{lieber2024jamba,
  title   = {Jamba: A Hybrid Transformer-Mamba Language Model},
  author  = {Lieber, Opher and Lenz, Barak and Bata, Hofit and Cohen, Gal and Osin, Jhonathan and others},
  journal = {arXiv preprint arXiv:2403.19887},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern=list(periodic(32)),
        depth=64,
        d_model=4096,
        options={
            "mamba": {"d_state": 16, "taps": 4, "expand": 2, "dt_rank": 256, "norms": "learned"},
            "attention": {"heads": 32, "kv_heads": 8, "rope": False},
            "mlp": {"d_hidden": 14336},
            "moe": {"d_hidden": 14336, "experts": 16, "active": 2, "balance": 0.001},
        },
        norm_eps=1e-6,
        tie=False,
    ),
    claims=[
        Claim(
            task="language model, vocabulary 65536", metric="parameters", value=51_570_323_328, source=COUNTED
        ),
        Claim(
            task="language model, vocabulary 65536",
            metric="active parameters",
            value=12_110_311_296,
            source=COUNTED,
        ),
    ],
    notes=(
        "A layer of Jamba is a mixer and a perceptron or mixture, so 32 layers are 64 names here. Attention "
        "mixes in layers 4, 12, 20 and 28, mixtures stand in the odd layers. There are no positions. Norms "
        "add 1e-6 to the mean square. The load balancing loss is off in the released configuration; its "
        "weight there is 0.001. Jamba 1.5 has the same layout in other sizes."
    ),
    layouts={"jamba": Layout(rules=RULES, tied={"lm_head.weight": "model.embed_tokens.weight"})},
)

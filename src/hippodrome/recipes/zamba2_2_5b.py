"""Zamba2 as transformers configures it by default: Mamba-2 and a transformer block that nine layers share."""

from hippodrome.config import MAMBA2_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

BLOCK, HEARS = "backbone.stack.blocks.{plain[i]}", "backbone.stack.blocks.{uses[u]}"
PLAIN, HYBRID = "model.layers.{plain[i]}", "model.layers.{uses[u]}.mamba_decoder"
SHARED, SOURCE = "backbone.shared.{s}", "model.layers.{uses[s]}.shared_transformer"
OWN, HOME = "backbone.adapted.{u}", "model.layers.{homes[u]}.shared_transformer"
BLOCKS = {
    "norm.weight": "input_layernorm.weight",
    "out.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "pre_ff_layernorm.weight",
    "fc1.weight": "feed_forward.gate_up_proj.weight",
    "fc1.bias": "feed_forward.gate_up_proj.bias",
    "fc2.weight": "feed_forward.down_proj.weight",
    "fc2.bias": "feed_forward.down_proj.bias",
}
QKV = [f"self_attn.{x}_proj.weight" for x in "qkv"]
HEADS = [f"self_attn.linear_{x}_adapter_list" for x in "qkv"]
MLP = "feed_forward.gate_up_proj_adapter_list"
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours=f"{BLOCK}.norm.weight", theirs=[f"{PLAIN}.input_layernorm.weight"]),
    Rule(ours=f"{HEARS}.norm.weight", theirs=[f"{HYBRID}.input_layernorm.weight"]),
    *[Rule(ours=f"{BLOCK}.mixer.{part}", theirs=[f"{PLAIN}.mamba.{part}"]) for part in MAMBA2_PARTS],
    *[Rule(ours=f"{HEARS}.mixer.{part}", theirs=[f"{HYBRID}.mamba.{part}"]) for part in MAMBA2_PARTS],
    *[Rule(ours=f"{SHARED}.{ours}", theirs=[f"{SOURCE}.{theirs}"]) for ours, theirs in BLOCKS.items()],
    Rule(ours=f"{SHARED}.attention.in_proj.weight", theirs=[f"{SOURCE}.{x}" for x in QKV], sizes="heads"),
    Rule(ours=f"{OWN}.linear.weight", theirs=["model.layers.{uses[u]}.linear.weight"]),
    Rule(ours=f"{OWN}.down.weight", theirs=[f"{HOME}.{MLP}.{{u}}.0.weight"]),
    Rule(ours=f"{OWN}.up.weight", theirs=[f"{HOME}.{MLP}.{{u}}.1.weight"]),
    Rule(ours=f"{OWN}.heads_down.weight", theirs=[f"{HOME}.{x}.{{u}}.0.weight" for x in HEADS]),
    *[
        Rule(ours=f"{OWN}.heads_up.{k}.weight", theirs=[f"{HOME}.{HEADS[k]}.{{u}}.1.weight"])
        for k in range(3)
    ],
    Rule(ours="backbone.stack.norm.weight", theirs=["model.final_layernorm.weight"]),
]
RECIPE = Recipe(
    name="zamba2_2_5b",
    title="Zamba2, 2.5 billion parameters, the default configuration",
    family="hybrid",
    citation="""
@article{glorioso2024zamba2,
  title   = {The Zamba2 Suite: Technical Report},
  author  = {Glorioso, Paolo and Anthony, Quentin and Tokpanov, Yury and Golubeva, Anna and others},
  journal = {arXiv preprint arXiv:2411.15242},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="shared_attention:mamba2",
        depth=54,
        d_model=2560,
        options={
            "shared_attention": {
                "uses": [6, 12, 18, 24, 30, 36, 42, 47, 51],
                "shared": 1,
                "heads": 32,
                "d_hidden": 10240,
                "rank": 128,
            },
            "mamba2": {"d_state": 64, "taps": 4, "expand": 2, "head_dim": 640, "groups": 1, "dt_low": 1e-3},
        },
    ),
    claims=[
        Claim(
            task="language model, vocabulary 32000, head tied to the embedding",
            metric="parameters",
            value=2_481_848_336,
            source="computed from the default of transformers' Zamba2Config",
        ),
    ],
    notes=(
        "The default of the class, not a released model: those have smaller heads of Mamba-2 and two shared "
        "blocks, some also rotary positions and low-rank changes of queries, keys and values. The layout is "
        "the same."
    ),
    layouts={
        "zamba2": Layout(
            rules=RULES,
            tied={
                "lm_head.weight": "model.embed_tokens.weight",
                # A shared block stands with the first layer that hears it, and may stand with the others.
                "model.layers.{uses[u]}.shared_transformer.": f"{HOME}.",
            },
        )
    },
)

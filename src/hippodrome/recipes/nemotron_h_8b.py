"""Nemotron-H 8B: one mixer or perceptron a layer, four of 52 layers attention."""

from hippodrome.config import MAMBA2_PARTS, Layout, Recipe, RecipeModel, Rule

AROUND = {
    "shared.fc1": "shared_experts.up_proj",
    "shared.fc2": "shared_experts.down_proj",
    "enter": "fc1_latent_proj",
    "leave": "fc2_latent_proj",
}
KINDS = ("weight", "bias")
BLOCK, THEIRS = "backbone.blocks.{i}.mixer", "backbone.layers.{i}.mixer"
MAMBA, MAMBA_THERE = "backbone.blocks.{mamba[i]}.mixer", "backbone.layers.{mamba[i]}.mixer"
ATTENTION, HEADS = "backbone.blocks.{attention[i]}.mixer", "backbone.layers.{attention[i]}.mixer"
RULES = [
    Rule(ours="embedding.weight", theirs=["backbone.embeddings.weight"]),
    Rule(ours="backbone.blocks.{i}.norm.weight", theirs=["backbone.layers.{i}.norm.weight"]),
    *[Rule(ours=f"{MAMBA}.{part}", theirs=[f"{MAMBA_THERE}.{part}"]) for part in MAMBA2_PARTS],
    Rule(
        ours=f"{ATTENTION}.in_proj.weight", theirs=[f"{HEADS}.{x}_proj.weight" for x in "qkv"], sizes="heads"
    ),
    Rule(ours=f"{ATTENTION}.out_proj.weight", theirs=[f"{HEADS}.o_proj.weight"]),
    *[Rule(ours=f"{BLOCK}.mlp.fc1.{kind}", theirs=[f"{THEIRS}.up_proj.{kind}"]) for kind in KINDS],
    *[Rule(ours=f"{BLOCK}.mlp.fc2.{kind}", theirs=[f"{THEIRS}.down_proj.{kind}"]) for kind in KINDS],
    Rule(ours=f"{BLOCK}.moe.router.weight", theirs=[f"{THEIRS}.gate.weight"]),
    Rule(ours=f"{BLOCK}.moe.correction", theirs=[f"{THEIRS}.gate.e_score_correction_bias"]),
    Rule(ours=f"{BLOCK}.moe.fc1.weight", theirs=[f"{THEIRS}.experts.{{e}}.up_proj.weight"], stack="e"),
    Rule(ours=f"{BLOCK}.moe.fc2.weight", theirs=[f"{THEIRS}.experts.{{e}}.down_proj.weight"], stack="e"),
    *[
        Rule(ours=f"{BLOCK}.moe.{ours}.{kind}", theirs=[f"{THEIRS}.{theirs}.{kind}"])
        for ours, theirs in AROUND.items()
        for kind in KINDS
    ],
    Rule(ours="backbone.norm.weight", theirs=["backbone.norm_f.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="nemotron_h_8b",
    title="Nemotron-H 8B",
    family="hybrid",
    citation="""
@article{nvidia2025nemotronh,
  title   = {Nemotron-H: A Family of Accurate and Efficient Hybrid Mamba-Transformer Models},
  author  = {{NVIDIA}},
  journal = {arXiv preprint arXiv:2504.03624},
  year    = {2025}
}
""",
    model=RecipeModel(
        pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        depth=52,
        d_model=4096,
        options={
            "mamba2": {
                "d_state": 128,
                "taps": 4,
                "expand": 2,
                "head_dim": 64,
                "groups": 8,
                "chunk": 128,
                "dt_low": 1e-3,
            },
            "attention": {"heads": 32, "kv_heads": 8, "head_dim": 128, "rope": False},
            "mlp": {"d_hidden": 21504, "gated": False, "activation": "relu2"},
        },
        tie=False,
    ),
    notes=(
        "Sizes of layers, and that step sizes are at least 0.001, are those of transformers' "
        "NemotronHConfig. The pattern is recalled, not established: 24 Mamba-2, 4 attention, 24 perceptrons, "
        "with which a vocabulary of 131072 and an untied head make 8.10 billion parameters. The models of "
        "this family with a mixture of experts have the same layout. Layers that predict further tokens "
        "(mtp) are left out, as transformers leaves them."
    ),
    layouts={"nemotron_h": Layout(rules=RULES, ignored=[r"mtp\..*"])},
)

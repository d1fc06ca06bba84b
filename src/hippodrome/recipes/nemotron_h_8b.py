"""Nemotron-H 8B: one mixer or perceptron a layer, four of 52 layers attention."""

from hippodrome.config import Recipe, RecipeModel

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
        "this family with a mixture of experts route by sigmoids in groups, which is not built."
    ),
)

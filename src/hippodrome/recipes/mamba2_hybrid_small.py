"""Mamba-2-Hybrid at a width of 1024: the allocation of the 8B model over 48 layers."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba2_hybrid_small",
    title="Mamba-2-Hybrid, width 1024",
    family="hybrid",
    citation="""
@article{waleffe2024empirical,
  title   = {An Empirical Study of Mamba-based Language Models},
  author  = {Waleffe, Roger and Byeon, Wonmin and Riach, Duncan and Norick, Brandon and others},
  journal = {arXiv preprint arXiv:2406.07887},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="M-M-M--M-*M-M-M-M--*M-M-M-M-*M--M-M-M-*M-M--M-M-",
        depth=48,
        d_model=1024,
        options={
            "mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 8, "chunk": 128},
            "attention": {"heads": 16, "rope": False},
            "mlp": {"d_hidden": 4096, "gated": False, "activation": "relu2"},
        },
        tie=False,
    ),
    training={"lr": 2.5e-4, "weight_decay": 0.1, "final_lr": 0.1},
    notes=(
        "Width and heads are those of the authors' small models; their number of layers is not established "
        "here, and 48 is the size for which the rule's pattern (M48*.08-.5) is. For 24 layers take "
        "M24*.08-.5, M-M-M--*M-M-M-M-*M--M-M-. The learning rate is that of the 8B model."
    ),
)

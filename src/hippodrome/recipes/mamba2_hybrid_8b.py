"""Mamba-2-Hybrid 8B: 43 % Mamba-2, 7 % attention, 50 % perceptrons, spread evenly."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba2_hybrid_8b",
    title="Mamba-2-Hybrid 8B",
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
        pattern="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
        depth=56,
        d_model=4096,
        options={
            "mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 8, "chunk": 128},
            "attention": {"heads": 32, "kv_heads": 8, "head_dim": 128, "rope": False},
            "mlp": {"d_hidden": 16384, "gated": False, "activation": "relu2"},
        },
        tie=False,
    ),
    training={"lr": 2.5e-4, "weight_decay": 0.1, "final_lr": 0.1},
    notes=(
        "The pattern is what the authors' rule makes of 56 layers, a share of .08 of attention and .5 of "
        "perceptrons (M56*.08-.5); that perceptrons are ungated squared ReLU of four times the width is "
        "recalled. A vocabulary of 256000 and an untied head make about 8.66 billion parameters. Trained at "
        "a context of 4096; there are no positions."
    ),
)

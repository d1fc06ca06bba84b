"""A mixture of memories over the gated delta rule as a language model of its larger published size."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="mom_1_3b",
    title="MoM 1.3B, gated delta rule",
    family="matrix state",
    citation="""
@misc{du2025mom,
  title  = {{MoM}: Linear Sequence Modeling with Mixture-of-Memories},
  author = {Du, Jusen and Sun, Weigao and Lan, Disen and Hu, Jiaxi and Cheng, Yu},
  year   = {2025},
  note   = {arXiv:2502.13685}
}
""",
    model=RecipeModel(
        pattern="mom",
        depth=24,
        d_model=2048,
        options={
            "mom": {
                "rule": "gated_delta",
                "memories": 4,
                "active": 2,
                "heads": 4,
                "head_dim": 256,
                "expand": 1,
                "shared": True,
                "taps": 4,
                "balance": 0.01,
            }
        },
        mlp=True,
        d_hidden=5632,
        norm="rms",
    ),
    training={"lr": 3e-4, "warmup": 1024 / 30720},
    notes=(
        "Known to differ from the size of 340M in two numbers, a width of 2048 and a hidden ratio of 4; all "
        "else is taken to be as there, heads and depth too, which is not established. Perceptrons have 4 x "
        "2/3 x 2048 channels, up to a multiple of 256, so 5632, by the rule of flash-linear-attention, "
        "which is recalled. 100B tokens of SlimPajama in contexts of 2048. So counted, all memories together "
        "make it 1.55 billion parameters. Result numbers: not established."
    ),
)

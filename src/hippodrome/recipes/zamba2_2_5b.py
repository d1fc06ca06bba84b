"""Zamba2 as transformers configures it by default: Mamba-2 and a transformer block that nine layers share."""

from hippodrome.config import Claim, Recipe, RecipeModel

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
        "blocks, some also rotary positions and low-rank changes of queries, keys and values, of which the "
        "last are not built here."
    ),
)

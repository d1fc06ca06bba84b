"""Mamba at 2.8 billion parameters, as its authors released it."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba_2_8b",
    title="Mamba 2.8b",
    family="diagonal recurrence",
    citation="""
@article{gu2023mamba,
  title   = {Mamba: Linear-Time Sequence Modeling with Selective State Spaces},
  author  = {Gu, Albert and Dao, Tri},
  journal = {arXiv preprint arXiv:2312.00752},
  year    = {2023}
}
""",
    model=RecipeModel(
        pattern="mamba",
        depth=64,
        d_model=2560,
        options={"mamba": {"d_state": 16, "taps": 4, "expand": 2, "dt_rank": 160}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="language model, vocabulary 50280, head tied to the embedding",
            metric="parameters",
            value=2_768_345_600,
            source="computed from the authors' configuration (state-spaces/mamba-2.8b)",
        ),
    ],
    notes=(
        "The released model was trained on 300 billion tokens of the Pile at a context of 2048, with the "
        "tokenizer of GPT-NeoX-20B, whose 50277 tokens are padded to 50280. A second one of this size, "
        "mamba-2.8b-slimpj, was trained on 600 billion tokens of SlimPajama."
    ),
)

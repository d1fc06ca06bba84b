"""Mamba at 370 million parameters, as its authors released it."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba_370m",
    title="Mamba 370m",
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
        depth=48,
        d_model=1024,
        options={"mamba": {"d_state": 16, "taps": 4, "expand": 2, "dt_rank": 64}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="language model, vocabulary 50280, head tied to the embedding",
            metric="parameters",
            value=371_516_416,
            source="computed from the authors' configuration (state-spaces/mamba-370m)",
        ),
    ],
    notes=(
        "The released model was trained on 300 billion tokens of the Pile at a context of 2048, with the "
        "tokenizer of GPT-NeoX-20B, whose 50277 tokens are padded to 50280."
    ),
)

"""Mamba-2 at 780 million parameters, as its authors released it."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba2_780m",
    title="Mamba-2 780m",
    family="matrix state",
    citation="""
@inproceedings{dao2024transformers,
  title     = {Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured
               State Space Duality},
  author    = {Dao, Tri and Gu, Albert},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2405.21060}
}
""",
    model=RecipeModel(
        pattern="mamba2",
        depth=48,
        d_model=1536,
        options={"mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 1}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="language model, vocabulary 50288, head tied to the embedding",
            metric="parameters",
            value=780_161_280,
            source="computed from the authors' configuration (state-spaces/mamba2-780m)",
        ),
    ],
    notes="The authors pad the vocabulary of the GPT-NeoX-20B tokenizer to a multiple of 16, so to 50288.",
)

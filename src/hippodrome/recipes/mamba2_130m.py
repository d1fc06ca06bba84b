"""Mamba-2 at 130 million parameters, as its authors released it."""

from hippodrome.config import MAMBA2_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

BLOCK, THEIRS = "backbone.blocks.{i}", "backbone.layers.{i}"
RULES = [
    Rule(ours=f"{BLOCK}.norm.weight", theirs=[f"{THEIRS}.norm.weight"]),
    *[Rule(ours=f"{BLOCK}.mixer.{x}", theirs=[f"{THEIRS}.mixer.{x}"]) for x in MAMBA2_PARTS],
    Rule(ours="backbone.norm.weight", theirs=["backbone.norm_f.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]
AUTHORS = Rule(ours="embedding.weight", theirs=["backbone.embedding.weight"])
TRANSFORMERS = Rule(ours="embedding.weight", theirs=["backbone.embeddings.weight"])

RECIPE = Recipe(
    name="mamba2_130m",
    title="Mamba-2 130m",
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
        depth=24,
        d_model=768,
        options={"mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 1}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="language model, vocabulary 50288, head tied to the embedding",
            metric="parameters",
            value=128_989_632,
            source="computed from the authors' configuration (state-spaces/mamba2-130m)",
        ),
    ],
    notes="The authors pad the vocabulary of the GPT-NeoX-20B tokenizer to a multiple of 16, so to 50288.",
    layouts={
        "mamba2": Layout(
            rules=[AUTHORS, *RULES], tied={"lm_head.weight": "backbone.embedding.weight"}, pickled=True
        ),
        "mamba2-hf": Layout(
            rules=[TRANSFORMERS, *RULES], tied={"lm_head.weight": "backbone.embeddings.weight"}
        ),
    },
)

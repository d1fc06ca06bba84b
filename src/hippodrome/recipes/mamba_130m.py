"""Mamba at 130 million parameters, as its authors released it."""

from hippodrome.config import MAMBA_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

BLOCK, THEIRS = "backbone.blocks.{i}", "backbone.layers.{i}"
RULES = [
    Rule(ours=f"{BLOCK}.norm.weight", theirs=[f"{THEIRS}.norm.weight"]),
    *[Rule(ours=f"{BLOCK}.mixer.{x}", theirs=[f"{THEIRS}.mixer.{x}"]) for x in MAMBA_PARTS],
    Rule(ours="backbone.norm.weight", theirs=["backbone.norm_f.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]
AUTHORS = Rule(ours="embedding.weight", theirs=["backbone.embedding.weight"])
TRANSFORMERS = Rule(ours="embedding.weight", theirs=["backbone.embeddings.weight"])

RECIPE = Recipe(
    name="mamba_130m",
    title="Mamba 130m",
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
        depth=24,
        d_model=768,
        options={"mamba": {"d_state": 16, "taps": 4, "expand": 2, "dt_rank": 48}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="language model, vocabulary 50280, head tied to the embedding",
            metric="parameters",
            value=129_135_360,
            source="computed from the authors' configuration (state-spaces/mamba-130m)",
        ),
    ],
    notes=(
        "The released model was trained on 300 billion tokens of the Pile at a context of 2048, with the "
        "tokenizer of GPT-NeoX-20B, whose 50277 tokens are padded to 50280."
    ),
    layouts={
        "mamba": Layout(
            rules=[AUTHORS, *RULES], tied={"lm_head.weight": "backbone.embedding.weight"}, pickled=True
        ),
        "mamba-hf": Layout(
            rules=[TRANSFORMERS, *RULES], tied={"lm_head.weight": "backbone.embeddings.weight"}
        ),
    },
)

"""Falcon-Mamba 7B: Mamba with norms without weights over step sizes, input and output vectors."""

from hippodrome.config import MAMBA_PARTS, Claim, Layout, Recipe, RecipeModel, Rule

BLOCK, THEIRS = "backbone.blocks.{i}", "backbone.layers.{i}"
RULES = [
    Rule(ours="embedding.weight", theirs=["backbone.embeddings.weight"]),
    Rule(ours=f"{BLOCK}.norm.weight", theirs=[f"{THEIRS}.norm.weight"]),
    *[Rule(ours=f"{BLOCK}.mixer.{x}", theirs=[f"{THEIRS}.mixer.{x}"]) for x in MAMBA_PARTS],
    Rule(ours="backbone.norm.weight", theirs=["backbone.norm_f.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="falcon_mamba_7b",
    title="Falcon-Mamba 7B",
    family="diagonal recurrence",
    citation="""
@article{zuo2024falcon,
  title   = {Falcon Mamba: The First Competitive Attention-free 7B Language Model},
  author  = {Zuo, Jingwei and Velikanov, Maksim and Rhaiem, Dhia Eddine and Chahed, Ilyas and
             Belkada, Younes and Kunsch, Guillaume and Hacid, Hakim},
  journal = {arXiv preprint arXiv:2410.05355},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="mamba",
        depth=64,
        d_model=4096,
        options={
            "mamba": {"d_state": 16, "taps": 4, "d_inner": 8192, "dt_rank": 256, "norms": "weightless"},
        },
        mlp=False,
        norm="rms",
        tie=False,
    ),
    claims=[
        Claim(
            task="language model, vocabulary 65024",
            metric="parameters",
            value=7_272_665_088,
            source="computed from the configuration of tiiuae/falcon-mamba-7b as transformers builds it",
        ),
    ],
    notes=(
        "The published configuration says expand 16 beside an inner width of 8192, twice the hidden one: the "
        "width holds. Norms stand before the map to the step sizes; the fused kernel of its training is "
        "reported to have normalized after it. Sizes are from copies of the configuration; results are not "
        "established here."
    ),
    layouts={
        "falcon_mamba": Layout(rules=RULES, tied={"lm_head.weight": "backbone.embeddings.weight"}),
    },
)

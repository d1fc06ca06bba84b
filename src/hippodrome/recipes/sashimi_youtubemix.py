"""SaShiMi for piano music, the YouTubeMix set."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="sashimi_youtubemix",
    title="SaShiMi, piano music (YouTubeMix)",
    family="U-net over time",
    citation="""
@inproceedings{goel2022raw,
  title     = {It's Raw! Audio Generation with State-Space Models},
  author    = {Goel, Karan and Gu, Albert and Donahue, Chris and R{\\'e}, Christopher},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
  note      = {arXiv:2202.09729}
}
""",
    model=RecipeModel(
        pattern="sashimi:s4",
        depth=8,
        d_model=64,
        options={
            "sashimi": {"pool": [4, 4], "expand": 2, "hidden": 2},
            "s4": {"d_state": 64, "measure": "legs"},
        },
        mlp=True,
        norm="layer",
    ),
    notes=(
        "Windows of 131,072 samples of mu-law levels: data.length=131072. Batch size and learning rate are "
        "this program's own. The published likelihood could not be confirmed, so none is claimed."
    ),
)

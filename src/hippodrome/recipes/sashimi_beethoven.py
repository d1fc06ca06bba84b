"""SaShiMi for piano sonatas, the Beethoven set."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="sashimi_beethoven",
    title="SaShiMi, piano sonatas (Beethoven)",
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
    training={"lr": 0.004, "batch_size": 1},
    notes=(
        "Windows of 128,000 samples of linear levels: data.length=128000, data.quantization=linear. The "
        "published likelihood could not be confirmed, so none is claimed."
    ),
)

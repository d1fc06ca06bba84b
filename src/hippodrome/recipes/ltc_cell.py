"""The liquid time-constant cell with its fused solver."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="ltc_cell",
    title="LTC, the liquid time-constant network",
    family="nonlinear recurrence",
    citation="""
@inproceedings{hasani2021liquid,
  title     = {Liquid Time-constant Networks},
  author    = {Hasani, Ramin and Lechner, Mathias and Amini, Alexander and Rus, Daniela and Grosu, Radu},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2021},
  note      = {arXiv:2006.04439}
}
""",
    model=RecipeModel(
        pattern="ltc",
        depth=1,
        d_model=32,
        options={"ltc": {"d_state": 32, "unfolds": 6}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.01, "weight_decay": 0.0, "batch_size": 16},
    notes=(
        "Six solver steps a token are the source's; the sizes are ours. No number of the source "
        "has been confirmed, so none is claimed."
    ),
)

"""The Legendre memory: a sliding window of the past in Legendre coordinates."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="lmu_memory",
    title="LMU, the Legendre memory",
    family="polynomial memory",
    citation="""
@inproceedings{voelker2019legendre,
  title     = {Legendre Memory Units: Continuous-Time Representation in Recurrent Neural Networks},
  author    = {Voelker, Aaron R. and Kaji{\\'c}, Ivana and Eliasmith, Chris},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019}
}
""",
    model=RecipeModel(
        pattern="lmu",
        depth=1,
        d_model=212,
        options={"lmu": {"d_state": 256, "theta": 784.0}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 0.0, "batch_size": 100},
    notes=(
        "The form that trains in parallel: the memory is driven by the tokens alone, not by the "
        "hidden state. Width and order are ours, a window of one 784-pixel image; no number of "
        "the source has been confirmed, so none is claimed."
    ),
)

"""The linear recurrent unit on the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="lru_lra",
    title="LRU, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{orvieto2023resurrecting,
  title     = {Resurrecting Recurrent Neural Networks for Long Sequences},
  author    = {Orvieto, Antonio and Smith, Samuel L. and Gu, Albert and Fernando, Anushan and Gulcehre,
               Caglar and Pascanu, Razvan and De, Soham},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  note      = {arXiv:2303.06349}
}
""",
    model=RecipeModel(
        pattern="bi-lru",
        depth=6,
        d_model=512,
        options={"lru": {"d_state": 384, "r_min": 0.9, "r_max": 0.99}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.004, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.602,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.894,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.899,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.89,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.951,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.942,
            source="[V] NicolasZucchet/minimal-LRU, README",
        ),
    ],
    notes=(
        "Widths, states and rings by task could not be confirmed; these are ours. The source "
        "normalizes by BatchNorm."
    ),
)

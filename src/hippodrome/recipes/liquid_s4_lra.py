"""Liquid-S4, whose transition depends on the input, on the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="liquid_s4_lra",
    title="Liquid-S4, Long Range Arena",
    family="diagonal recurrence",
    citation="""
@inproceedings{hasani2023liquid,
  title     = {Liquid Structural State-Space Models},
  author    = {Hasani, Ramin and Lechner, Mathias and Wang, Tsun-Hsuan and Chahine, Makram and Amini,
               Alexander and Rus, Daniela},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2209.12951}
}
""",
    model=RecipeModel(
        pattern="liquid_s4",
        depth=9,
        d_model=128,
        options={"liquid_s4": {"d_state": 8, "dt_min": 0.002, "dt_max": 0.2}},
        mlp=False,
        norm="layer",
        dropout=0.01,
    ),
    training={"lr": 0.002, "weight_decay": 0.03, "batch_size": 12},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.6275,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.8902,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.912,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.895,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.948,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.9666,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="sequential CIFAR-10",
            metric="accuracy",
            value=0.9202,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Speech Commands, 35 words, raw 16 kHz, 224 thousand parameters",
            metric="accuracy",
            value=0.9678,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="Speech Commands, 35 words, trained at 16 kHz, tested at 8 kHz",
            metric="accuracy",
            value=0.9,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="BIDMC heart rate",
            metric="RMSE",
            value=0.303,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="BIDMC respiratory rate",
            metric="RMSE",
            value=0.158,
            source="[V] raminmh/liquid-s4",
        ),
        Claim(
            task="BIDMC oxygen saturation",
            metric="RMSE",
            value=0.066,
            source="[V] raminmh/liquid-s4",
        ),
    ],
    notes=(
        "The set-up is that of ListOps (7 states and products of degree 5 in the source). The "
        "layer here runs the exact recurrence instead of kernels of low degree, on a diagonal "
        "system with pairs of states: 8 of them."
    ),
)

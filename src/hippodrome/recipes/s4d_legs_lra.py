"""S4D-LegS with the set-up of the Long Range Arena's images."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4d_legs_lra",
    title="S4D-LegS, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{gu2022parameterization,
  title     = {On the Parameterization and Initialization of Diagonal State Space Models},
  author    = {Gu, Albert and Gupta, Ankit and Goel, Karan and R{\\'e}, Christopher},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2206.11893}
}
""",
    model=RecipeModel(
        pattern="bi-s4d",
        depth=6,
        d_model=512,
        options={"s4d": {"d_state": 64, "init": "legs", "dt_min": 0.001, "dt_max": 0.1}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.6047,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.8618,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.8946,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.8819,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.9306,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.9195,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="sequential CIFAR-10",
            metric="accuracy",
            value=0.8992,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 35 words, raw 16 kHz",
            metric="accuracy",
            value=0.9583,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 35 words, trained at 16 kHz, tested at 8 kHz",
            metric="accuracy",
            value=0.9108,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC heart rate",
            metric="RMSE",
            value=0.367,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC respiratory rate",
            metric="RMSE",
            value=0.248,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC oxygen saturation",
            metric="RMSE",
            value=0.102,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
    ],
    notes=("The set-up is that of Image; the other tasks follow S4's (see s4_lra_image)."),
)

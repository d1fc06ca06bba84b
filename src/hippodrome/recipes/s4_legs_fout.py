"""S4 whose copies of the system are half LegS, half FouT."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4_legs_fout",
    title="S4-LegS/FouT",
    family="LTI system",
    citation="""
@misc{gu2022train,
  title     = {How to Train Your HiPPO: State Space Models with Generalized Orthogonal Basis Projections},
  author    = {Gu, Albert and Johnson, Isys and Timalsina, Aman and Rudra, Atri and R{\\'e}, Christopher},
  year      = {2022},
  note      = {arXiv:2206.12037}
}
""",
    model=RecipeModel(
        pattern="bi-s4",
        depth=6,
        d_model=512,
        options={"s4": {"d_state": 64, "n_ssm": 2, "measure": "legs+fout"}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.6045,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.8678,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.903,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.89,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.9444,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 35 words, raw 16 kHz",
            metric="accuracy",
            value=0.9532,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 35 words, trained at 16 kHz, tested at 8 kHz",
            metric="accuracy",
            value=0.9072,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="sequential CIFAR-10",
            metric="accuracy",
            value=0.9158,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC heart rate",
            metric="RMSE",
            value=0.344,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC respiratory rate",
            metric="RMSE",
            value=0.163,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="BIDMC oxygen saturation",
            metric="RMSE",
            value=0.08,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
    ],
    notes=("It does not learn Path-X in the source."),
)

"""DSS, full complex diagonal states, with the softmax kernel."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="dss_lra",
    title="DSS-softmax, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{gupta2022diagonal,
  title     = {Diagonal State Spaces are as Effective as Structured State Spaces},
  author    = {Gupta, Ankit and Gu, Albert and Berant, Jonathan},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2203.14343}
}
""",
    model=RecipeModel(
        pattern="dss",
        depth=6,
        d_model=128,
        options={
            "dss": {
                "d_state": 64,
                "version": "softmax",
                "l_max": 4096,
                "separate_dt": True,
                "dt_min": 0.001,
                "dt_max": 0.1,
            }
        },
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 0.01, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.606,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.848,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.878,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.857,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.846,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.878,
            source="[V] ag1988/dss, README",
        ),
        Claim(
            task="Speech Commands, 10 words, raw 16 kHz",
            metric="accuracy",
            value=0.977,
            source="[V] ag1988/dss, README",
        ),
    ],
    notes=(
        "Widths and depths by task could not be confirmed; these are ours. Path-X draws steps "
        "from 1e-4 to 1e-2 in the source. l_max is the longest sequence: the normalization of the "
        "kernel depends on it."
    ),
)

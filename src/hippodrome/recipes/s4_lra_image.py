"""S4 with its final set-up for the images of the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4_lra_image",
    title="S4-LegS, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{gu2022efficiently,
  title     = {Efficiently Modeling Long Sequences with Structured State Spaces},
  author    = {Gu, Albert and Goel, Karan and R{\\'e}, Christopher},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
  note      = {arXiv:2111.00396}
}
""",
    model=RecipeModel(
        pattern="bi-s4",
        depth=6,
        d_model=512,
        options={"s4": {"d_state": 64, "n_ssm": 1, "measure": "legs", "dt_min": 0.001, "dt_max": 0.1}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.596,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.8682,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.909,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.8865,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.942,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.9635,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="sequential MNIST",
            metric="accuracy",
            value=0.9963,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="permuted sequential MNIST",
            metric="accuracy",
            value=0.987,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="sequential CIFAR-10",
            metric="accuracy",
            value=0.918,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 10 words, raw 16 kHz",
            metric="accuracy",
            value=0.9832,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
        Claim(
            task="Speech Commands, 10 words, trained at 16 kHz, tested at 8 kHz",
            metric="accuracy",
            value=0.963,
            source="[V] state-spaces/s4, the table of experiments in its README",
        ),
    ],
    notes=(
        "The numbers of all six tasks stand here; the set-up is that of Image (180 thousand "
        "steps, 18 thousand of them warm-up). ListOps, Text and Retrieval use width 256 and 4 "
        "states a channel, Pathfinder and Path-X width 256, Path-X steps of 1e-4 to 1e-1. The "
        "source normalizes by BatchNorm or LayerNorm as the task asks, after or before the mixer; "
        "blocks here normalize before it."
    ),
)

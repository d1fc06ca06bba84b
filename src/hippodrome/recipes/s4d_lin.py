"""The small stand-alone S4D that its authors ship as an example, with poles on a line."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4d_lin",
    title="S4D-Lin, the stand-alone example",
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
        pattern="s4d",
        depth=4,
        d_model=128,
        options={"s4d": {"d_state": 64, "init": "lin", "dt_min": 1e-3, "dt_max": 1e-1}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.01, "batch_size": 64},
    claims=[
        Claim(
            task="sequential CIFAR-10, colour, classes from the mean over time, 200 thousand parameters",
            metric="accuracy",
            value=0.88,
            source="state-spaces/s4, the stand-alone example (models/s4/s4d.py): about 88 %",
        ),
    ],
    notes=(
        "The example normalizes after each residual; the blocks here normalize before the mixer, as all of "
        "this library's do. B is trained here and fixed at 1 there, which adds 33 thousand parameters. The "
        "example trains for 100 epochs with a cosine schedule."
    ),
)

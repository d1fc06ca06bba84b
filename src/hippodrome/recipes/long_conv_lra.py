"""Simple long convolutions with the set-up of sequential CIFAR-10, and those of the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="long_conv_lra",
    title="Long convolutions, Long Range Arena and CIFAR-10",
    family="long convolution",
    citation="""
@inproceedings{fu2023simple,
  title     = {Simple Hardware-Efficient Long Convolutions for Sequence Modeling},
  author    = {Fu, Daniel Y. and Epstein, Elliot L. and Nguyen, Eric and Thomas, Armin W. and Zhang, Michael
               and Dao, Tri and Rudra, Atri and R{\\'e}, Christopher},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  note      = {arXiv:2302.06646}
}
""",
    model=RecipeModel(
        pattern="long_conv",
        depth=6,
        d_model=512,
        options={"long_conv": {"max_length": 1024, "squash": 0.001, "kernel_dropout": 0.2}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="sequential CIFAR-10, random init",
            metric="accuracy",
            value=0.91,
            source="[V] HazyResearch/safari",
        ),
        Claim(
            task="sequential CIFAR-10, double exponential init",
            metric="accuracy",
            value=0.921,
            source="[V] HazyResearch/safari",
        ),
        Claim(
            task="sequential CIFAR-10, learned butterfly (butterfly_conv)",
            metric="accuracy",
            value=0.925,
            source="[V] HazyResearch/safari",
        ),
        Claim(
            task="Path256, 65 thousand steps",
            metric="accuracy",
            value=0.922,
            source="[V] HazyResearch/safari",
        ),
    ],
    notes=(
        "The set-up is that of sequential CIFAR-10 (300 epochs). By task, width, layers, squash, dropout of "
        "taps, learning rate of the kernel: ListOps 128, 8, .002, .2, 5e-4; Text 256, 6, .003, .2, 1e-3; "
        "Retrieval 256, 6, .004, .1, 1e-4; Image 512, 6, .003, .2 and dropout .1; Pathfinder (bi-long_conv) "
        "256, 6, .001, .3, 1e-3, learning rate .004, weight decay .03; Path-X (bi-long_conv, 16384 taps) "
        "256, 6, .001, .3, 5e-4, learning rate 5e-4. The source normalizes by BatchNorm where not LayerNorm. "
        "Scores of single tasks of the arena could not be confirmed."
    ),
)

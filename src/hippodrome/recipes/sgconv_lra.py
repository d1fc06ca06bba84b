"""SGConv on the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="sgconv_lra",
    title="SGConv, Long Range Arena",
    family="long convolution",
    citation="""
@inproceedings{li2023what,
  title     = {What Makes Convolutional Models Great on Long Sequence Modeling?},
  author    = {Li, Yuhong and Cai, Tianle and Zhang, Yi and Chen, Deming and Dey, Debadeepta},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2210.09298}
}
""",
    model=RecipeModel(
        pattern="bi-sgconv",
        depth=6,
        d_model=512,
        options={"sgconv": {"max_length": 1024, "kernel_dim": 32}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.6145,
            source="[V] ctlllll/SGConv, its published results",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.892,
            source="[V] ctlllll/SGConv, its published results",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.9111,
            source="[V] ctlllll/SGConv, its published results",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.8797,
            source="[V] ctlllll/SGConv, its published results",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.9546,
            source="[V] ctlllll/SGConv, its published results",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.9783,
            source="[V] ctlllll/SGConv, its published results",
        ),
    ],
    notes=(
        "Widths, depths and short kernels by task could not be confirmed: these are S4's for Image with "
        "short kernels of 32 taps (the source says small ones for the arena). For other tasks set max_length "
        "to their length."
    ),
)

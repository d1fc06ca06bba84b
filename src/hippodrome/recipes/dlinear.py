"""DLinear on the ETT files: two linear maps, of the moving average of a window and of what is left."""

from hippodrome.config import Claim, Recipe, RecipeModel

SHORT = "[V] table of long-term results at look-back 96 in the paper of iTransformer, two copies that agree"
LONG = "[V] DLinear in table 3 of the paper of PatchTST"

RECIPE = Recipe(
    name="dlinear",
    title="DLinear, ETTh1 multivariate, look-back 336 or 96",
    family="linear map",
    citation="""
@inproceedings{zeng2023are,
  title     = {Are Transformers Effective for Time Series Forecasting?},
  author    = {Zeng, Ailing and Chen, Muxi and Zhang, Lei and Xu, Qiang},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2023},
  note      = {arXiv:2205.13504}
}
""",
    model=RecipeModel(
        pattern=None, depth=1, d_model=1, forecasting={"shortcut": 25, "normalization": "none"}
    ),
    training={"lr": 0.005, "batch_size": 32, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": None},
    claims=[
        Claim(
            task=f"{data}, look-back {back}, horizon {horizon}",
            metric=metric,
            value=value,
            source=SHORT if back == 96 else LONG,
        )
        for data, back, horizon, mse, mae in (
            ("ETTh1", 96, 96, 0.386, 0.400),
            ("ETTh1", 96, 192, 0.437, 0.432),
            ("ETTh1", 96, 336, 0.481, 0.459),
            ("ETTh1", 96, 720, 0.519, 0.516),
            ("ETTm1", 96, 96, 0.345, 0.372),
            ("ETTm1", 96, 192, 0.380, 0.389),
            ("ETTm1", 96, 336, 0.413, 0.413),
            ("ETTm1", 96, 720, 0.474, 0.453),
            ("ETTh1", 336, 96, 0.375, 0.399),
            ("ETTh1", 336, 192, 0.405, 0.416),
            ("ETTh1", 336, 336, 0.439, 0.443),
            ("ETTh1", 336, 720, 0.472, 0.490),
            ("ETTm1", 336, 96, 0.299, 0.343),
            ("ETTm1", 336, 192, 0.335, 0.365),
            ("ETTm1", 336, 336, 0.369, 0.386),
            ("ETTm1", 336, 720, 0.425, 0.421),
        )
        for metric, value in (("mse", mse), ("mae", mae))
    ],
    notes=(
        "One pair of maps for all variates, as in the authors' scripts. Rate and batch are those of their "
        "script for ETTh1 at a look-back of 336, which trains for up to 10 epochs. At a look-back of 96 "
        "and a horizon of 720 larger rates overfit: 1000 steps at --lr 1e-4 come to .517, and 2640 at 1e-3 "
        "to .556. Not as published: the rate falls along a cosine where theirs halves with each epoch; "
        "quantiles are trained beside the point, by a map of their own. Width and depth mean nothing here."
    ),
)

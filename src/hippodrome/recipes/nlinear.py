"""NLinear: one linear map of a window whose last value is taken off and added again."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="nlinear",
    title="NLinear, ETTh1 multivariate, look-back 336",
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
    model=RecipeModel(pattern=None, depth=1, d_model=1, forecasting={"shortcut": 1, "normalization": "last"}),
    training={"lr": 0.005, "batch_size": 32, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": None},
    claims=[],
    notes=(
        "Rate and batch are those of DLinear. Not as published: the rate falls along a cosine where theirs "
        "halves with each epoch; weights start at one divided by the look-back; quantiles are trained "
        "beside the point, by a map of their own. Width and depth mean nothing here."
    ),
)

"""iTransformer on the ETT files: attention between variates, each a token."""

from hippodrome.config import Claim, Recipe, RecipeModel

SOURCE = "[V] table of the paper's long-term results at look-back 96, two copies of it that agree"

RECIPE = Recipe(
    name="itransformer",
    title="iTransformer, ETTh1 multivariate, look-back 96",
    family="attention",
    citation="""
@inproceedings{liu2024itransformer,
  title     = {iTransformer: Inverted Transformers Are Effective for Time Series Forecasting},
  author    = {Liu, Yong and Hu, Tengge and Zhang, Haoran and Wu, Haixu and Wang, Shiyu and Ma, Lintao and
               Long, Mingsheng},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2310.06625}
}
""",
    model=RecipeModel(
        pattern="inverted:full_attention+mlp",
        depth=4,
        d_model=256,
        options={
            "inverted": {"variates": 7},
            "full_attention": {"heads": 8, "dropout": 0.1},
            "mlp": {"gated": False, "activation": "gelu", "bias": True, "d_hidden": 256},
        },
        norm="layer",
        post_norm=True,
        dropout=0.1,
    ),
    training={"lr": 0.0001, "batch_size": 32, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": None},
    claims=[
        Claim(task=f"{data}, look-back 96, horizon {horizon}", metric=metric, value=value, source=SOURCE)
        for data, horizon, mse, mae in (
            ("ETTh1", 96, 0.386, 0.405),
            ("ETTh1", 192, 0.441, 0.436),
            ("ETTh1", 336, 0.487, 0.458),
            ("ETTh1", 720, 0.503, 0.491),
            ("ETTm1", 96, 0.334, 0.368),
            ("ETTm1", 192, 0.377, 0.391),
            ("ETTm1", 336, 0.426, 0.420),
            ("ETTm1", 720, 0.491, 0.459),
        )
        for metric, value in (("mse", mse), ("mae", mae))
    ],
    notes=(
        "Sizes and rate of the authors' script for ETTh1 at 96 and 192; it has width and perceptron 512 at "
        "336 and 720, and 128 for ETTm1. To be trained with --look-back 96 for up to 10 epochs (2640 steps "
        "for ETTh1 at 96). Two layers are four here, attention and perceptron counted each. Not as "
        "published: hours and days are no further tokens; nothing is dropped between embedding and layers "
        "or inside the perceptron; the rate falls along a cosine where theirs halves with each epoch; "
        "quantiles are trained beside the point. The authors' code leaves out the last incomplete batch of "
        "the test windows, here all count."
    ),
)

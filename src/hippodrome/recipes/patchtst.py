"""PatchTST on the ETT files: attention between patches of each variate by itself."""

from hippodrome.config import Claim, Recipe, RecipeModel

SHORT = "[V] table of long-term results at look-back 96 in the paper of iTransformer, two copies that agree"
LONG = "[V] table 3 of the paper, PatchTST/42"

RECIPE = Recipe(
    name="patchtst",
    title="PatchTST, ETTh1 multivariate, look-back 336 or 96",
    family="attention",
    citation="""
@inproceedings{nie2023time,
  title     = {A Time Series is Worth 64 Words: Long-term Forecasting with Transformers},
  author    = {Nie, Yuqi and Nguyen, Nam H. and Sinthong, Phanwadee and Kalagnanam, Jayant},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2211.14730}
}
""",
    model=RecipeModel(
        pattern="full_attention+mlp",
        depth=6,
        d_model=16,
        options={
            "full_attention": {"heads": 4},
            "mlp": {"gated": False, "activation": "gelu", "bias": True, "d_hidden": 128},
        },
        norm="layer",
        post_norm=True,
        dropout=0.3,
        forecasting={"patch": 16, "stride": 8, "head": "all", "positions": True},
    ),
    training={"lr": 0.0001, "batch_size": 128, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": None},
    claims=[
        Claim(
            task=f"{data}, look-back {back}, horizon {horizon}",
            metric=metric,
            value=value,
            source=SHORT if back == 96 else LONG,
        )
        for data, back, horizon, mse, mae in (
            ("ETTh1", 96, 96, 0.414, 0.419),
            ("ETTh1", 96, 192, 0.460, 0.445),
            ("ETTh1", 96, 336, 0.501, 0.466),
            ("ETTh1", 96, 720, 0.500, 0.488),
            ("ETTm1", 96, 96, 0.329, 0.367),
            ("ETTm1", 96, 192, 0.367, 0.385),
            ("ETTm1", 96, 336, 0.399, 0.410),
            ("ETTm1", 96, 720, 0.454, 0.439),
            ("ETTh1", 336, 96, 0.375, 0.399),
            ("ETTh1", 336, 192, 0.414, 0.421),
            ("ETTh1", 336, 336, 0.431, 0.436),
            ("ETTh1", 336, 720, 0.449, 0.466),
            ("ETTm1", 336, 96, 0.290, 0.342),
            ("ETTm1", 336, 192, 0.332, 0.369),
            ("ETTm1", 336, 336, 0.366, 0.392),
            ("ETTm1", 336, 720, 0.420, 0.424),
        )
        for metric, value in (("mse", mse), ("mae", mae))
    ],
    notes=(
        "Sizes, patches and rate of the authors' script for ETTh1 (look-back 336, up to 100 epochs of 128 "
        "windows with patience); it has width 128, 16 heads and a perceptron of 256 for ETTm1. Three layers "
        "are six here, attention and perceptron counted each. Not as published: norms are over the channels "
        "of a token where theirs are over the batch, and one more stands at the end; scores are not added to "
        "those of the layer before; nothing is dropped between embedding and layers or inside the "
        "perceptron; a last patch that repeats the last value is left out; quantiles are trained beside the "
        "point. At a look-back of 96 the numbers claimed are those that iTransformer's authors measured, "
        "with sizes that they do not give."
    ),
)

"""S-Mamba on the ETT files: Mamba both ways over the variates, each a token."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="s_mamba",
    title="S-Mamba, ETTh1 multivariate, look-back 96",
    family="selective scan",
    citation="""
@article{wang2024mamba,
  title   = {Is Mamba Effective for Time Series Forecasting?},
  author  = {Wang, Zihan and Kong, Fanheng and Feng, Shi and Wang, Ming and Yang, Xiaocui and Zhao, Han and
             Wang, Daling and Zhang, Yifei},
  journal = {arXiv preprint arXiv:2403.11144},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="inverted:bimamba+mlp",
        depth=4,
        d_model=256,
        options={
            "inverted": {"variates": 7},
            "bimamba": {"tied": False, "d_state": 2, "taps": 2, "expand": 1},
            "mlp": {"gated": False, "activation": "gelu", "bias": True, "d_hidden": 256},
        },
        norm="layer",
        post_norm=True,
        dropout=0.1,
    ),
    training={"lr": 0.00007, "batch_size": 32, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": None},
    claims=[],
    notes=(
        "Sizes and rate of the authors' script for ETTh1 at 96 and 192; the rate is 5e-5 at 336 and 720. To "
        "be trained with --look-back 96 for up to 10 epochs (2640 steps for ETTh1 at 96). Two layers are "
        "four here, the two Mambas and the perceptron counted each. Not as published: hours and days are no "
        "further tokens; nothing is dropped between embedding and layers or inside the perceptron, and what "
        "the Mambas give is dropped from where theirs is not; the rate falls along a cosine where theirs "
        "halves with each epoch; quantiles are trained beside the point. The paper's numbers could not be "
        "confirmed from a source at hand, so none is claimed."
    ),
)

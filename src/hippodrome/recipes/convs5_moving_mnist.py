"""ConvS5 on moving digits: eight layers over latent frames of 16 x 16 points."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="convs5_moving_mnist",
    title="ConvS5, moving MNIST",
    family="LTI system",
    citation="""
@inproceedings{smith2023convolutional,
  title     = {Convolutional State Space Models for Long-Range Spatiotemporal Modeling},
  author    = {Smith, Jimmy T. H. and De Mello, Shalini and Kautz, Jan and Linderman, Scott W. and
               Byeon, Wonmin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  note      = {arXiv:2310.19694}
}
""",
    model=RecipeModel(
        pattern="conv_s5",
        depth=8,
        d_model=16 * 16 * 256,
        options={
            "conv_s5": {
                "sizes": [16, 16],
                "d_state": 256,
                "kernel": 3,
                "feed": "resnet",
                "groups": 32,
                "dt_min": 0.001,
                "dt_max": 0.1,
                "clip_eigs": True,
            }
        },
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 1e-05, "batch_size": 8},
    claims=[
        Claim(
            task="Moving MNIST, trained at 600 frames, generated to 800",
            metric="SSIM",
            value=0.788,
            source="[V] table of a later paper",
        ),
        Claim(
            task="Moving MNIST, trained at 600 frames, generated to 800",
            metric="FVD",
            value=47.0,
            source="[V] table of a later paper",
        ),
        Claim(
            task="Moving MNIST, trained at 600 frames, generated to 1200",
            metric="SSIM",
            value=0.763,
            source="[V] table of a later paper",
        ),
        Claim(
            task="Moving MNIST, trained at 600 frames, generated to 1200",
            metric="FVD",
            value=71.0,
            source="[V] table of a later paper",
        ),
        Claim(
            task="Moving MNIST, trained at 300 frames, generated to 1200",
            metric="FVD",
            value=187.0,
            source="[V] table of a later paper",
        ),
    ],
    notes=(
        "For frames of 64 x 64 pixels in patches of 4 (-s data.size=64), whose latent frames have 16 x 16 "
        "points of 256 channels. The source's encoder and decoder are deeper, its norms stand behind the "
        "layers and ours before, and it trains for 300 thousand steps with a warm-up of five thousand, at "
        "5e-4 where rows have 600 frames; 100 frames are shown before the open loop."
    ),
)

"""ViM2-B: a pyramid of MambaMixers for pictures of 224 x 224 pixels."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="vim2_base",
    title="ViM2-B, ImageNet",
    family="selective scan",
    citation="""
@article{behrouz2024mambamixer,
  title   = {MambaMixer: Efficient Selective State Space Models with Dual Token and Channel Selection},
  author  = {Behrouz, Ali and Santacatterina, Michele and Zabih, Ramin},
  journal = {arXiv preprint arXiv:2403.19888},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="vim2:ss2d:channel_scan",
        depth=2,
        d_model=128,
        options={
            "vim2": {"sizes": [56, 56], "depths": [2, 2, 18, 2], "every": 2},
            "ss2d": {"sizes": [56, 56], "d_state": 16, "expand": 2},
            "channel_scan": {"width": 4, "d_state": 16},
        },
        norm="layer",
        vision={"size": [224, 224], "patch": 4, "stem": "normed"},
    ),
    training={"lr": 0.001, "weight_decay": 0.05, "batch_size": 1024},
    claims=[
        Claim(
            task="ImageNet-1K, 224 x 224",
            metric="top-1 accuracy",
            value=83.9,
            source="table of ImageNet results of the paper, which calls them preliminary",
        )
    ],
    notes=(
        "In the paper 300 epochs with a warm-up of 20. Widths, token mixers and channel mixers of each "
        "stage are the paper's. How large its channel mixers are is not established: here the channels of "
        "each point are scanned with four features. That makes 57.8M parameters where the paper has 74M "
        "(-22 %), a classifier of 1000 classes included. Beside these token mixers no one size of channel "
        "mixer gives all three of the paper's counts."
    ),
)

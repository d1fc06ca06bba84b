"""The first VMamba-T: gated selective scans along four orders, and no perceptrons."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="vmamba_v0_t",
    title="VMamba-T, first version, ImageNet",
    family="diagonal recurrence",
    citation="""
@article{liu2024vmamba,
  title   = {VMamba: Visual State Space Model},
  author  = {Liu, Yue and Tian, Yunjie and Zhao, Yuzhong and Yu, Hongtian and Xie, Lingxi and Wang, Yaowei
             and Ye, Qixiang and Liu, Yunfan},
  journal = {arXiv preprint arXiv:2401.10166},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="pyramid:ss2d",
        depth=2,
        d_model=96,
        options={
            "pyramid": {"sizes": [56, 56], "depths": [2, 2, 9, 2]},
            "ss2d": {"sizes": [56, 56]},
        },
        norm="layer",
        vision={"size": [224, 224], "patch": 4, "stem": "normed", "drop_path": 0.1},
    ),
    training={},
    claims=[
        Claim(
            task="ImageNet at 224 x 224",
            metric="accuracy",
            value=0.822,
            source="[src] MzeroMiko/VMamba",
        ),
        Claim(
            task="parameters, rounded, at 1,000 classes",
            metric="size",
            value=23000000.0,
            source="[src] MzeroMiko/VMamba",
        ),
        Claim(
            task="ImageNet at 224 x 224",
            metric="FLOPs",
            value=5600000000.0,
            source="[src] MzeroMiko/VMamba",
        ),
    ],
    notes=("States of 16 a channel, as in Mamba."),
)

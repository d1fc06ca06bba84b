"""VMamba-S (s2l15): selective scans along four orders, with a perceptron beside each."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="vmamba_s",
    title="VMamba-S (s2l15), ImageNet",
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
        pattern="pyramid:ss2d+mlp",
        depth=4,
        d_model=96,
        options={
            "pyramid": {"sizes": [56, 56], "depths": [4, 4, 30, 4], "merge": "convs"},
            "ss2d": {
                "sizes": [56, 56],
                "d_state": 1,
                "expand": 2,
                "gated": False,
                "conv_bias": False,
            },
            "mlp": {"gated": False, "activation": "gelu", "bias": True},
        },
        norm="layer",
        vision={"size": [224, 224], "patch": 4, "stem": "convs"},
    ),
    training={},
    claims=[
        Claim(
            task="ImageNet at 224 x 224",
            metric="accuracy",
            value=0.836,
            source="[src] MzeroMiko/VMamba",
        ),
        Claim(
            task="parameters, rounded, at 1,000 classes",
            metric="size",
            value=50000000.0,
            source="[src] MzeroMiko/VMamba",
        ),
        Claim(
            task="ImageNet at 224 x 224",
            metric="FLOPs",
            value=8700000000.0,
            source="[src] MzeroMiko/VMamba",
        ),
    ],
    notes=(
        "Depths count layers of the pattern: a block is a scan and a perceptron. The rate of stochastic "
        "depth and the training settings are not established here."
    ),
)

"""EfficientVMamba-S: skip-sampling scans in early stages, convolutions in late ones."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="efficient_vmamba_s",
    title="EfficientVMamba-S, ImageNet",
    family="diagonal recurrence",
    citation="""
@article{pei2024efficientvmamba,
  title   = {EfficientVMamba: Atrous Selective Scan for Light Weight Visual Mamba},
  author  = {Pei, Xiaohuan and Huang, Tao and Xu, Chang},
  journal = {arXiv preprint arXiv:2403.09977},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="pyramid:evss:evss:inverted_residual:inverted_residual",
        depth=2,
        d_model=64,
        options={
            "pyramid": {"sizes": [56, 56], "depths": [2, 2, 4, 2]},
            "evss": {"sizes": [56, 56]},
            "inverted_residual": {"sizes": [56, 56]},
        },
        norm="layer",
        vision={"size": [224, 224], "patch": 4, "stem": "normed", "drop_path": 0.2},
    ),
    training={},
    claims=[
        Claim(
            task="ImageNet at 224 x 224",
            metric="accuracy",
            value=0.787,
            source="[src] TerryPei/EfficientVMamba",
        ),
        Claim(
            task="parameters, rounded, at 1,000 classes",
            metric="size",
            value=11000000.0,
            source="[src] TerryPei/EfficientVMamba",
        ),
        Claim(
            task="ImageNet at 224 x 224",
            metric="FLOPs",
            value=1300000000.0,
            source="[src] TerryPei/EfficientVMamba",
        ),
    ],
    notes=(
        "Parameters are published without the head, as far as their digits tell. The gate of the inverted "
        "residuals has an eighth of their wide channels: of the choices that the paper leaves, the one whose "
        "parameters and FLOPs are those of the tables. Training settings are not established here."
        " The authors' configuration file of this size names a width of 96, which makes 24.8 million "
        "parameters and 2.8 G; parameters and FLOPs of their tables are both those of a width of 64, "
        "which stands here."
    ),
)

"""Vim-S: patches as one sequence, read both ways, a class token in its middle."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="vim_s",
    title="Vim-S, ImageNet",
    family="diagonal recurrence",
    citation="""
@inproceedings{zhu2024vim,
  title     = {Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model},
  author    = {Zhu, Lianghui and Liao, Bencheng and Zhang, Qian and Wang, Xinlong and Liu, Wenyu and Wang,
               Xinggang},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2401.09417}
}
""",
    model=RecipeModel(
        pattern="bimamba",
        depth=24,
        d_model=384,
        options={"bimamba": {"tied": True, "combine": "mean"}},
        vision={"size": [224, 224], "patch": 16, "pooling": "token", "drop_path": 0.05},
    ),
    training={"lr": 1e-3, "weight_decay": 0.05, "batch_size": 512},
    claims=[
        Claim(
            task="ImageNet at 224 x 224",
            metric="accuracy",
            value=0.805,
            source="[src] hustvl/Vim",
        ),
        Claim(
            task="ImageNet, fine-tuned on longer sequences",
            metric="accuracy",
            value=0.816,
            source="[src] hustvl/Vim",
        ),
        Claim(
            task="parameters, rounded, at 1,000 classes",
            metric="size",
            value=26000000.0,
            source="[src] hustvl/Vim",
        ),
    ],
    notes=("300 epochs, 5 of them warm-up."),
)

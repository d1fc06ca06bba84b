"""SpaceTime with the set-up of univariate ETTh1 at a horizon of 720 hours."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="space_time_etth1",
    title="SpaceTime, ETTh1 univariate, look-back 336, horizon 720",
    family="LTI system",
    citation="""
@inproceedings{zhang2023effectively,
  title     = {Effectively Modeling Time Series with Simple Discrete State Spaces},
  author    = {Zhang, Michael and Saab, Khaled Kamal and Poli, Michael and Dao, Tri and Goel, Karan and
               R{\\'e}, Christopher},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2303.09489}
}
""",
    model=RecipeModel(
        pattern="closed_loop:space_time",
        depth=2,
        d_model=128,
        options={
            "closed_loop": {"kernel_dim": 64, "differencing": True, "max_window": 64},
            "space_time": {"kernel_dim": 64, "n_kernels": 16},
        },
        mlp=False,
        dropout=0.25,
        forecasting={"normalization": "level", "dropout": 0.25},
    ),
    training={"lr": 0.001, "weight_decay": 0.0001, "batch_size": 50},
    claims=[],
    notes=(
        "One encoder block and the decoder, as the published command has them; windows lose their mean, "
        "which is added back. To be trained on the column OT: --look-back 336 --horizon 720 "
        '-s data.targets=["OT"] (a file named ETTh1 takes the published split by itself). The authors train '
        "for up to 500 epochs and stop after 20 without gain. Not as published: the input is mapped by "
        "learned weights where theirs is repeated; blocks have a norm in their residual branch; errors are "
        "mean squares, not roots of them. The paper's numbers for this task could not be confirmed from a "
        "source at hand, so none is claimed. For classes of sequences the encoder alone is the model: "
        "hippodrome classify with --model space_time."
    ),
)

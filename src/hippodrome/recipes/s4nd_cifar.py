"""S4ND over both axes of small images."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4nd_cifar",
    title="S4ND, CIFAR-10 in two dimensions",
    family="LTI system",
    citation="""
@inproceedings{nguyen2022s4nd,
  title     = {S4ND: Modeling Images and Videos as Multidimensional Signals Using State Spaces},
  author    = {Nguyen, Eric and Goel, Karan and Gu, Albert and Downs, Gordon W. and Shah, Preey and Dao,
               Tri and Baccus, Stephen A. and R{\\'e}, Christopher},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2210.06583}
}
""",
    model=RecipeModel(
        pattern="s4nd",
        depth=6,
        d_model=512,
        options={"s4nd": {"sizes": [32, 32], "d_state": 64, "dt_min": 0.1, "dt_max": 1.0}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="CIFAR-10 in two dimensions, isotropic, 268 thousand parameters",
            metric="accuracy",
            value=0.899,
            source="[V] state-spaces/s4",
        ),
        Claim(
            task="ImageNet, S4ND in place of attention in ViT-B",
            metric="accuracy",
            value=0.804,
            source="[V] state-spaces/s4",
        ),
        Claim(
            task="ImageNet, S4ND in place of the convolutions of ConvNeXt-T",
            metric="accuracy",
            value=0.822,
            source="[V] state-spaces/s4",
        ),
    ],
    notes=(
        "Tokens are the pixels row by row. The claims are of models of their own sizes; the "
        "set-up is the configuration of width 512 for CIFAR-10 at 32 x 32, trained for 100 epochs."
    ),
)

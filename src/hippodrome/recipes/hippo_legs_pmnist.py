"""The HiPPO-LegS recurrent cell with its set-up for permuted MNIST."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="hippo_legs_pmnist",
    title="HiPPO-LegS, permuted MNIST",
    family="polynomial memory",
    citation="""
@inproceedings{gu2020hippo,
  title     = {HiPPO: Recurrent Memory with Optimal Polynomial Projections},
  author    = {Gu, Albert and Dao, Tri and Ermon, Stefano and Rudra, Atri and R{\\'e}, Christopher},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  note      = {arXiv:2008.07669}
}
""",
    model=RecipeModel(
        pattern="hippo_rnn",
        depth=1,
        d_model=512,
        options={"hippo_rnn": {"measure": "legs"}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 0.0, "batch_size": 100},
    claims=[
        Claim(
            task="permuted sequential MNIST",
            metric="accuracy",
            value=0.983,
            source="[V] HazyResearch/hippo-code",
        ),
        Claim(
            task="sequential MNIST, the same cell",
            metric="accuracy",
            value=0.989,
            source="[V] the tables of state-spaces/s4",
        ),
        Claim(
            task="sequential CIFAR-10, the same cell",
            metric="accuracy",
            value=0.611,
            source="[V] the tables of state-spaces/s4",
        ),
    ],
    notes=(
        "Hidden size 512 and 50 epochs in the source. The block here adds a norm and a residual "
        "around the cell, which the source has not."
    ),
)

"""The linear state space layer with several learned time scales."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="lssl_smnist",
    title="LSSL, sequential MNIST",
    family="LTI system",
    citation="""
@inproceedings{gu2021combining,
  title     = {Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space
               Layers},
  author    = {Gu, Albert and Johnson, Isys and Goel, Karan and Saab, Khaled and Dao, Tri and Rudra,
               Atri and R{\\'e}, Christopher},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021},
  note      = {arXiv:2110.13985}
}
""",
    model=RecipeModel(
        pattern="lssl",
        depth=6,
        d_model=128,
        options={"lssl": {"d_state": 128, "trainable": True, "dt_min": 0.001, "dt_max": 0.1}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 0.01, "batch_size": 50},
    claims=[
        Claim(
            task="sequential MNIST",
            metric="accuracy",
            value=0.9953,
            source="[V] the tables of state-spaces/s4",
        ),
        Claim(
            task="permuted sequential MNIST",
            metric="accuracy",
            value=0.9876,
            source="[V] the tables of state-spaces/s4",
        ),
        Claim(
            task="sequential CIFAR-10",
            metric="accuracy",
            value=0.8465,
            source="[V] the tables of state-spaces/s4",
        ),
        Claim(
            task="Speech Commands, 10 words, MFCC",
            metric="accuracy",
            value=0.9358,
            source="[V] the tables of state-spaces/s4",
        ),
    ],
    notes=("State as large as the width, as the source has it by default; depth, rates and batch are ours."),
)

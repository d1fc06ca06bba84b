"""S4D whose poles come from a HiPPO matrix perturbed a little, then diagonalized."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s4_ptd_lra",
    title="S4-PTD, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{yu2024robustifying,
  title     = {Robustifying State-space Models for Long Sequences via Approximate Diagonalization},
  author    = {Yu, Annan and Nigmetov, Arnur and Morozov, Dmitriy and Mahoney, Michael W. and Erichson,
               N. Benjamin},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2310.01698}
}
""",
    model=RecipeModel(
        pattern="bi-s4d",
        depth=6,
        d_model=512,
        options={"s4d": {"d_state": 64, "init": "ptd"}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.01, "weight_decay": 0.05, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, mean of six tasks",
            metric="accuracy",
            value=0.8658,
            source="[V] third-party summaries of the paper",
        ),
    ],
    notes=(
        "The paper's optimizer of the perturbation and its weight could not be confirmed: the "
        "start and the search here are ours. Set-up of S4D for Image."
    ),
)

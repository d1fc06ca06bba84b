"""S5 whose poles come from a HiPPO matrix perturbed a little, then diagonalized."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s5_ptd_lra",
    title="S5-PTD, Long Range Arena",
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
        pattern="bi-s5",
        depth=6,
        d_model=512,
        options={"s5": {"d_state": 384, "blocks": 3, "init": "ptd"}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.0045, "weight_decay": 0.07, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, mean of six tasks",
            metric="accuracy",
            value=0.8761,
            source="[V] third-party summaries of the paper",
        ),
    ],
    notes=(
        "The paper's optimizer of the perturbation and its weight could not be confirmed: the "
        "start and the search here are ours. Set-up of S5 for Image."
    ),
)

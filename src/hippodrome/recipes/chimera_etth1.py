"""Chimera on ETTh1: a state space along time and along the variates; its sizes are not established."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="chimera_etth1",
    title="Chimera, ETTh1 multivariate",
    family="selective scan",
    citation="""
@inproceedings{behrouz2024chimera,
  title     = {Chimera: Effectively Modeling Multivariate Time Series with 2-Dimensional State Space Models},
  author    = {Behrouz, Ali and Santacatterina, Michele and Zabih, Ramin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024},
  note      = {arXiv:2406.04320}
}
""",
    model=RecipeModel(
        pattern="variates:chimera",
        depth=2,
        d_model=32,
        options={"variates": {"variates": 7}, "chimera": {"d_state": 8}},
    ),
    training={"lr": 0.001},
    claims=[],
    notes=(
        "The two-dimensional recurrence is the paper's. Not established, so not claimed: its sizes, its "
        "results, how coupled terms and inputs are discretized (coupling and rule choose), its two heads for "
        "trend and season and its closed-loop decoder, of which there are none here. Sizes are small ones "
        "that train on a processor. Use the split of the ETT files (-s data.split=ett)."
    ),
)

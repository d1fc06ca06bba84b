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
        pattern="two_scales:chimera",
        depth=2,
        d_model=64,
        options={"two_scales": {"variates": 7}, "chimera": {"d_state": 8}},
    ),
    training={"lr": 0.001},
    claims=[],
    notes=(
        "The two-dimensional recurrence is the paper's, and so are two modules whose time steps start small "
        "(long-term progression) and large (season), decoded apart and added. Not established, so not "
        "claimed: its sizes, its results, where the steps start, how coupled terms and inputs are "
        "discretized (coupling and rule choose), and whether the second module reads what the first left "
        "over; here both read the window. There is no companion matrix for A1 and A2 and no closed-loop "
        "decoder: the horizon is read by one linear map of each module. Sizes are small ones that train on a "
        "processor, half of d_model for each module. A file named ETTh1 takes the published split by itself."
    ),
)

"""HiSS with the set-up of RoNIN: readings of inertial sensors in, a physical quantity out."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="hiss_ronin",
    title="HiSS (S4 in chunks, S4 over them), RoNIN",
    family="LTI system",
    citation="""
@inproceedings{bhirangi2024hierarchical,
  title     = {Hierarchical State Space Models for Continuous Sequence-to-Sequence Modeling},
  author    = {Bhirangi, Raunaq and Wang, Chenyu and Pattabiraman, Venkatesh and Majidi, Carmel and
               Gupta, Abhinav and Hellebrekers, Tess and Pinto, Lerrel},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2402.10211}
}
""",
    model=RecipeModel(
        pattern="hiss:s4:s4",
        depth=6,
        d_model=256,
        options={"hiss": {"chunk": 10, "width": 128}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.0001, "batch_size": 4},
    claims=[],
    notes=(
        "Sizes of the authors' best configuration: six layers of S4, 256 wide, over the ten readings of a "
        "chunk (50 Hz to 5 Hz), six of S4, 128 wide, over the chunks; trained for 300 epochs by Adam. Their "
        "data (CSP-Bench) are not at hand, and errors of each data set are not established; the paper "
        "reports at least 23 % lower squared error than flat models on average. Inputs are told with their "
        "changes (-s data.deltas=true). The built-in source 'inertial' is a simulation of the same task, "
        "also for small sizes: --width 32 --depth 2."
    ),
)

"""HiSS with the set-up of Marker Writing: readings of a tactile sensor in, a physical quantity out."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="hiss_marker_writing",
    title="HiSS (S4 in chunks, Mamba over them), Marker Writing",
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
        pattern="hiss:s4:mamba",
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
        "chunk (50 Hz to 5 Hz), six of Mamba, 128 wide, over the chunks; trained for 300 epochs by Adam. "
        "Their other data take the same kinds at other sizes: Intrinsic Slip 256 x 6 and 256 x 4, Joystick "
        "256 x 4 and 256 x 4, TotalCapture 256 x 6 and 128 x 4 (width x layers below and above), VECtor "
        "Mamba 32 x 4 and Mamba 64 x 4. Their data (CSP-Bench) are not at hand, and errors of each data set "
        "are not established; the paper reports at least 23 % lower squared error than flat models on "
        "average. Inputs are told with their changes (-s data.deltas=true)."
    ),
)

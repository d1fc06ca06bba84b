"""A GRU as a forecaster: one value of one variate at a time, the horizon from what it knows at the end."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="gru_forecaster",
    title="GRU, one variate at a time",
    family="nonlinear recurrence",
    citation="""
@inproceedings{cho2014learning,
  title     = {Learning Phrase Representations using {RNN} Encoder-Decoder for Statistical Machine
               Translation},
  author    = {Cho, Kyunghyun and van Merri{\\"e}nboer, Bart and Gulcehre, Caglar and Bahdanau, Dzmitry and
               Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  year      = {2014},
  note      = {arXiv:1406.1078}
}
""",
    model=RecipeModel(
        pattern="gru",
        depth=1,
        d_model=64,
        mlp=False,
        norm="none",
        forecasting={"patch": 1, "stride": 1, "head": "last"},
    ),
    training={"lr": 0.001, "batch_size": 32, "weight_decay": 0.0},
    claims=[],
    notes=(
        "A usual baseline, of no one paper: the layer is the citation's, sizes and rate are ours. It reads "
        "every value, so it streams by single observations."
    ),
)

"""Mamba whose layers are held out of the convergent scenario of token dynamics, as a language model."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="token_dynamics_wikitext",
    title="Mamba with positive token dynamics",
    family="diagonal recurrence",
    citation="""
@inproceedings{vo2025demystifying,
  title     = {Demystifying the Token Dynamics of Deep Selective State Space Models},
  author    = {Vo, Thieu N. and Pham, Duy-Tung and Tong, Xin T. and Nguyen, Tan Minh},
  booktitle = {International Conference on Learning Representations},
  year      = {2025}
}
""",
    model=RecipeModel(
        pattern="mamba",
        depth=24,
        d_model=768,
        options={"mamba": {"dynamics": "positive", "d_state": 16, "taps": 4, "expand": 2}},
        mlp=False,
        norm="rms",
        dropout=0.25,
    ),
    training={"lr": 1.5e-3, "weight_decay": 0.25, "batch_size": 128},
    notes=(
        "WikiText-103, 25 epochs, windows of 1024 tokens. Depth and width are those of Mamba 130m: the "
        "authors' are not established. Their tables are recalled only (perplexity 16.66 held positive, 16.84 "
        "mixed, 17.28 negative), so nothing is claimed. `dynamics` 'negative' and 'mixed' are the other "
        "rows; the second refinement, tokens read in the order of their importance, is `reordered_mamba` in "
        "front of a layer, published for pictures."
    ),
)

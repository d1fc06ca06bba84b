"""Mamba-2 of 2.7 billion parameters with six attention layers, as its authors released it."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="mamba2attn_2_7b",
    title="Mamba-2 2.7B with attention in six layers",
    family="hybrid",
    citation="""
@inproceedings{dao2024transformers,
  title     = {Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured State
               Space Duality},
  author    = {Dao, Tri and Gu, Albert},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2405.21060}
}
""",
    model=RecipeModel(
        pattern="mamba2x9+attention+mamba2x8+attention+mamba2x8+attention+mamba2x8+attention+mamba2x8+attention"
        "+mamba2x10+attention+mamba2x7",
        depth=64,
        d_model=2560,
        options={
            "mamba2": {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64},
            "attention": {"heads": 30, "head_dim": 128, "rope_share": 0.5},
        },
        mlp=False,
    ),
    notes=(
        "Recalled, not established: that attention stands in layers 9, 18, 27, 36, 45 and 56, and that it "
        "has 30 heads of 128 channels, half of them turned by positions. The released attention also "
        "convolves queries, keys and values over four tokens, which ours does not."
    ),
)

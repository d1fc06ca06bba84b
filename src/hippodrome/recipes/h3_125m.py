"""H3 with two attention layers as a language model of 125 million parameters."""

from hippodrome.config import Claim, Recipe, RecipeModel

README = "[V] HazyResearch/H3, its README"
TABLE = "[V] HazyResearch/H3, its table of comparisons"

RECIPE = Recipe(
    name="h3_125m",
    title="H3 125M with attention in two layers",
    family="LTI system",
    citation="""
@inproceedings{fu2023hungry,
  title     = {Hungry Hungry Hippos: Towards Language Modeling with State Space Models},
  author    = {Fu, Daniel Y. and Dao, Tri and Saab, Khaled K. and Thomas, Armin W. and Rudra, Atri and
               R{\\'e}, Christopher},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2212.14052}
}
""",
    model=RecipeModel(
        pattern="h3+attention+h3x6+attention+h3x3",
        depth=12,
        d_model=768,
        options={
            "h3": {"d_state": 64, "taps": 64, "head_dim": 1},
            "attention": {"heads": 12, "rope": False},
        },
        mlp=True,
        norm="layer",
    ),
    training={"lr": 6e-4, "weight_decay": 0.1, "batch_size": 256, "warmup": 0.01, "final_lr": 0.1},
    claims=[
        Claim(task="OpenWebText", metric="perplexity", value=19.6, source=TABLE),
        Claim(task="OpenWebText, without attention", metric="perplexity", value=21.0, source=TABLE),
        Claim(task="The Pile", metric="perplexity", value=8.8, source=README),
        Claim(
            task="induction heads, synthetic, two layers without attention",
            metric="accuracy",
            value=1.0,
            source=TABLE,
        ),
        Claim(
            task="associative recall, synthetic, two layers without attention",
            metric="accuracy",
            value=0.998,
            source=TABLE,
        ),
    ],
    notes=(
        "Attention stands in the second layer and in the one half the depth further on. The published block "
        "has a plain MLP of four times the width with GELU where ours is gated, and dropout of 0.1 after the "
        "embedding, which stacks here do not have. The published rate of the diagonal system is 1e-3 at most."
    ),
)

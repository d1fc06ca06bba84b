"""A mixture of memories over the gated delta rule as a language model of its smaller published size."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="mom_340m",
    title="MoM 340M, gated delta rule",
    family="matrix state",
    citation="""
@misc{du2025mom,
  title  = {{MoM}: Linear Sequence Modeling with Mixture-of-Memories},
  author = {Du, Jusen and Sun, Weigao and Lan, Disen and Hu, Jiaxi and Cheng, Yu},
  year   = {2025},
  note   = {arXiv:2502.13685}
}
""",
    model=RecipeModel(
        pattern="mom",
        depth=24,
        d_model=1024,
        options={
            "mom": {
                "rule": "gated_delta",
                "memories": 4,
                "active": 2,
                "heads": 4,
                "head_dim": 256,
                "expand": 1,
                "shared": True,
                "taps": 4,
                "balance": 0.01,
            }
        },
        mlp=True,
        d_hidden=2048,
        norm="rms",
    ),
    training={"lr": 3e-4, "warmup": 1024 / 30720},
    notes=(
        "Sizes and training from the authors' code and configuration (OpenSparseLLMs/MoM): vocabulary 32000 "
        "(tokenizer fla-hub/gla-1.3B-100B), head tied to the embedding, 15B tokens of SlimPajama in contexts "
        "of 2048, 30720 steps. Its hidden ratio of 3 makes perceptrons of 3 x 2/3 x 1024 = 2048 channels by "
        "the rule of flash-linear-attention, which is recalled. All memories together make it 512 million "
        "parameters; a token goes through those of two and of the shared one. The authors' norms add 1e-6, "
        "ours 1e-5. They cut each memory at its share of tokens and convolve across memories in training; "
        "this is the exact form. Result numbers: not established."
    ),
)

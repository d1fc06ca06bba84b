"""Hyena as a language model on the Pile, in the sizes of the authors' configuration."""

from hippodrome.config import Claim, Recipe, RecipeModel

SAFARI = "[V] HazyResearch/safari, its tables"

RECIPE = Recipe(
    name="hyena_pile",
    title="Hyena, the Pile",
    family="long convolution",
    citation="""
@inproceedings{poli2023hyena,
  title     = {Hyena Hierarchy: Towards Larger Convolutional Language Models},
  author    = {Poli, Michael and Massaroli, Stefano and Nguyen, Eric and Fu, Daniel Y. and Dao, Tri and
               Baccus, Stephen and Bengio, Yoshua and Ermon, Stefano and R{\\'e}, Christopher},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  note      = {arXiv:2302.10866}
}
""",
    model=RecipeModel(
        pattern="hyena",
        depth=18,
        d_model=864,
        options={
            "hyena": {
                "order": 2,
                "max_length": 2048,
                "width": 64,
                "inner": 2,
                "features": 33,
                "frequency": 14.0,
                "taps": 3,
            }
        },
        mlp=True,
        d_hidden=1728,
        norm="layer",
    ),
    training={"lr": 6e-4, "weight_decay": 0.1, "batch_size": 256, "warmup": 0.01, "final_lr": 0.1},
    claims=[
        Claim(task="The Pile, 5 billion tokens, 125M", metric="perplexity", value=13.3, source=SAFARI),
        Claim(task="The Pile, 10 billion tokens, 125M", metric="perplexity", value=11.8, source=SAFARI),
        Claim(task="The Pile, 15 billion tokens, 125M", metric="perplexity", value=11.1, source=SAFARI),
        Claim(task="The Pile, 5 billion tokens, 355M", metric="perplexity", value=11.3, source=SAFARI),
        Claim(task="The Pile, 10 billion tokens, 355M", metric="perplexity", value=9.8, source=SAFARI),
        Claim(task="The Pile, 15 billion tokens, 355M", metric="perplexity", value=9.2, source=SAFARI),
        Claim(task="WikiText-103", metric="perplexity", value=18.6, source=SAFARI),
        Claim(
            task="associative recall, synthetic, vocabulary 30, 30,000 tokens",
            metric="accuracy",
            value=1.0,
            source=SAFARI,
        ),
        Claim(
            task="associative recall, synthetic, vocabulary 30, 131,000 tokens",
            metric="accuracy",
            value=0.972,
            source=SAFARI,
        ),
    ],
    notes=(
        "The sizes are those of the authors' file for 150 billion tokens of the Pile (18 layers of 864); the "
        "sizes behind the claims at 125M and on WikiText-103 could not be confirmed. The published MLP of "
        "twice the width is plain, with GELU, where ours is gated. The network and positions of the filter "
        "learn at the global rate there; here at 1e-3 and 1e-5 at most."
    ),
)

"""The Transformer of the Long Range Arena, trained from scratch: the baseline of all that came after it."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="transformer_lra",
    title="Transformer, Long Range Arena",
    family="attention",
    citation="""
@article{tay2020long,
  title   = {Long Range Arena: A Benchmark for Efficient Transformers},
  author  = {Tay, Yi and Dehghani, Mostafa and Abnar, Samira and Shen, Yikang and Bahri, Dara and Pham, Philip
             and Rao, Jinfeng and Yang, Liu and Ruder, Sebastian and Metzler, Donald},
  journal = {arXiv preprint arXiv:2011.04006},
  year    = {2020}
}
""",
    model=RecipeModel(
        pattern="bi-attention",
        depth=6,
        d_model=512,
        options={"attention": {"heads": 8}},
        mlp=True,
        d_hidden=2048,
        norm="layer",
        dropout=0.0,
    ),
    training={"batch_size": 32},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.3637,
            source="[V] google-research/long-range-arena, the table of results in its README",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.6427,
            source="[V] google-research/long-range-arena, the table of results in its README",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.5746,
            source="[V] google-research/long-range-arena, the table of results in its README",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.4244,
            source="[V] google-research/long-range-arena, the table of results in its README",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.714,
            source="[V] google-research/long-range-arena, the table of results in its README",
        ),
    ],
    notes=(
        "The set-up is that of ListOps and Text, with the batch of 32 and no dropout with which Amos, Berant "
        "and Gupta (arXiv 2310.02980) ran it. By task, layers / width / heads / hidden width over width: "
        "ListOps and Text 6 / 512 / 8 / 4, Retrieval 4 / 128 / 4 / 4, Image 3 / 64 / 4 / 2, Pathfinder "
        "4 / 128 / 8 / 1. --width and --depth change the first two alone. What differs: attention to the "
        "past and to what follows are two layers side by side here, where the source has one softmax over "
        "both; MLPs are gated; positions are rotary. The source has no number for Path-X, which it did not "
        "learn."
    ),
)

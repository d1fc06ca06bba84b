"""The gated state space layer as a language model's mixer."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="gss_owt",
    title="GSS, OpenWebText",
    family="LTI system",
    citation="""
@inproceedings{mehta2023long,
  title     = {Long Range Language Modeling via Gated State Spaces},
  author    = {Mehta, Harsh and Gupta, Ankit and Cutkosky, Ashok and Neyshabur, Behnam},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2206.13947}
}
""",
    model=RecipeModel(
        pattern="gss",
        depth=12,
        d_model=1024,
        options={"gss": {"d_inner": 256, "d_state": 512}},
        mlp=False,
        norm="layer",
    ),
    training={"lr": 0.001, "weight_decay": 0.1},
    claims=[
        Claim(
            task="OpenWebText",
            metric="perplexity",
            value=24.0,
            source="[V] HazyResearch/H3, its table of comparisons",
        ),
        Claim(
            task="OpenWebText, with two attention layers",
            metric="perplexity",
            value=19.8,
            source="[V] HazyResearch/H3, its table of comparisons",
        ),
        Claim(
            task="induction heads, synthetic",
            metric="accuracy",
            value=0.068,
            source="[V] HazyResearch/H3, its table of comparisons",
        ),
        Claim(
            task="associative recall, synthetic",
            metric="accuracy",
            value=0.78,
            source="[V] HazyResearch/H3, its table of comparisons",
        ),
    ],
    notes=(
        "Depth and width of the comparison could not be confirmed; these are ours. State 512, "
        "width of the system 256 and of the gate four times the model's are the source's."
    ),
)

"""S5 with its set-up for the images of the Long Range Arena."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="s5_lra_image",
    title="S5, Long Range Arena",
    family="LTI system",
    citation="""
@inproceedings{smith2023simplified,
  title     = {Simplified State Space Layers for Sequence Modeling},
  author    = {Smith, Jimmy T. H. and Warrington, Andrew and Linderman, Scott W.},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2208.04933}
}
""",
    model=RecipeModel(
        pattern="bi-s5",
        depth=6,
        d_model=512,
        options={"s5": {"d_state": 384, "blocks": 3, "clip_eigs": True}},
        mlp=False,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.0045, "weight_decay": 0.07, "batch_size": 50},
    claims=[
        Claim(
            task="Long Range Arena, ListOps",
            metric="accuracy",
            value=0.6215,
            source="[V] lindermanlab/S5",
        ),
        Claim(
            task="Long Range Arena, Text",
            metric="accuracy",
            value=0.8931,
            source="[V] lindermanlab/S5",
        ),
        Claim(
            task="Long Range Arena, Retrieval",
            metric="accuracy",
            value=0.914,
            source="[V] lindermanlab/S5",
        ),
        Claim(
            task="Long Range Arena, Image",
            metric="accuracy",
            value=0.88,
            source="[V] lindermanlab/S5",
        ),
        Claim(
            task="Long Range Arena, Pathfinder",
            metric="accuracy",
            value=0.9533,
            source="[V] lindermanlab/S5",
        ),
        Claim(
            task="Long Range Arena, Path-X",
            metric="accuracy",
            value=0.9858,
            source="[V] lindermanlab/S5",
        ),
    ],
    notes=(
        "The set-up is that of Image (250 epochs; rate of the system 1e-3, of the rest 4.5 times "
        "that). Width, state and blocks of the others: ListOps 128, 16, 8 (8 layers); Text 256, "
        "192, 12; Retrieval 128, 256, 16; Pathfinder 192, 256, 8; Path-X 128, 256, 16 with "
        "complex normal C and steps from 1e-4. The source uses BatchNorm."
    ),
)

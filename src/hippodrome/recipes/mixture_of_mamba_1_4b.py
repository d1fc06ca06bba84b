"""Mixture-of-Mamba at the shape of Mamba 1.4b: text and images in one sequence, each with its projections."""

from hippodrome.config import Claim, Recipe, RecipeModel

README = "the authors' README (Weixin-Liang/Mixture-of-Mamba), at 1.4 billion parameters"

RECIPE = Recipe(
    name="mixture_of_mamba_1_4b",
    title="Mixture-of-Mamba",
    family="diagonal recurrence",
    citation="""
@article{liang2025mixture,
  title   = {Mixture-of-Mamba: Enhancing Multi-Modal State-Space Models with Modality-Aware Sparsity},
  author  = {Liang, Weixin and Shen, Junhong and Zhang, Genghan and Dong, Ning and others},
  journal = {arXiv preprint arXiv:2501.16295},
  year    = {2025}
}
""",
    model=RecipeModel(
        pattern="mixture_of_mamba",
        depth=48,
        d_model=2048,
        options={"mixture_of_mamba": {"modalities": 2, "d_state": 16, "taps": 4, "expand": 2}},
        mlp=False,
        norm="rms",
    ),
    claims=[
        Claim(
            task="Transfusion, image loss: FLOPs to the loss of dense Mamba",
            metric="per cent",
            value=34.76,
            source=README,
        ),
        Claim(
            task="Chameleon, image loss: FLOPs to the loss of dense Mamba",
            metric="per cent",
            value=42.5,
            source=README,
        ),
        Claim(
            task="Chameleon, text loss: FLOPs to the loss of dense Mamba",
            metric="per cent",
            value=65.4,
            source=README,
        ),
        Claim(
            task="three modalities, speech loss: FLOPs to the loss of dense Mamba",
            metric="per cent",
            value=24.8,
            source=README,
        ),
    ],
    notes=(
        "Width and depth are those of Mamba 1.4b (a layer of the paper is two blocks); the authors' table of "
        "sizes was not at hand. Tokens must come with a modality: `modalities` of the language model says "
        "which each token id is."
    ),
)

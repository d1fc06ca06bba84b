"""Hydra as an encoder of text, as its authors trained it beside BERT."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="hydra_bert",
    title="Hydra (BERT-base)",
    family="matrix state",
    citation="""
@article{hwang2024hydra,
  title   = {Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers},
  author  = {Hwang, Sukjun and Lahoti, Aakash and Dao, Tri and Gu, Albert},
  journal = {arXiv preprint arXiv:2407.09941},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="hydra",
        depth=23,
        d_model=768,
        options={"hydra": {"d_state": 64, "taps": 7, "expand": 2, "head_dim": 64}},
        mlp=False,
        norm="rms",
    ),
    training={"weight_decay": 1e-5, "warmup": 0.06, "final_lr": 0.02},
    notes=(
        "The authors' configuration: C4 in pieces of 128 tokens of bert-base-uncased, 286,720,048 of "
        "them, 30 % of the places to fill in while training and 15 % in evaluation, no positions; AdamW "
        "with decoupled decay, betas 0.9 and 0.98, epsilon 1e-6, gradients clipped at norm 1, warm-up "
        "over 6 % of the samples, then a line to 2 % of the rate. The rate itself is not in the published "
        "file, which has 0. Recalled and not checked: GLUE 84.3 beside 83.5 of BERT; ImageNet-1k 81.0 "
        "beside 78.8 of ViT-B, top 1."
    ),
)

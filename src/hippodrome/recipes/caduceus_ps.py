"""Caduceus-PS: a model of DNA that reads both ways and both strands, with the same parameters for each."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="caduceus_ps",
    title="Caduceus-PS, 16 layers",
    family="diagonal recurrence",
    citation="""
@article{schiff2024caduceus,
  title   = {Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling},
  author  = {Schiff, Yair and Kao, Chia-Hsiang and Gokaslan, Aaron and Dao, Tri and Gu, Albert and
             Kuleshov, Volodymyr},
  journal = {arXiv preprint arXiv:2403.03234},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="rcps:bimamba",
        depth=16,
        d_model=512,
        options={"bimamba": {"tied": True, "combine": "add", "d_state": 16, "taps": 4, "expand": 2}},
        mlp=False,
        norm="rms",
    ),
    training={"lr": 8e-3, "weight_decay": 0.1, "warmup": 0.1, "final_lr": 0.0125},
    notes=(
        "Both strands are read by one stack of width 256, so the backbone is 512 wide. The authors' code "
        "swaps the halves of the residual stream on its fused path; here the logits turn exactly with the "
        "reverse complement. Published with 4, 8 and 16 layers. Trained on the human genome (hg38) in "
        "pieces of 1,024 to 131,072 letters, a million tokens a batch, 15 % of them to fill in; AdamW "
        "with betas 0.9 and 0.95, a cosine from 8e-3 to 1e-4, gradients clipped at norm 1, 50 thousand "
        "steps (10 thousand at 1,024 letters). Twelve token ids: seven special ones, A, C, G, T and N."
    ),
)

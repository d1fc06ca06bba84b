"""SaShiMi for spoken digits, the SC09 set."""

from hippodrome.config import Claim, Recipe, RecipeModel

RECIPE = Recipe(
    name="sashimi_sc09",
    title="SaShiMi, spoken digits (SC09)",
    family="U-net over time",
    citation="""
@inproceedings{goel2022raw,
  title     = {It's Raw! Audio Generation with State-Space Models},
  author    = {Goel, Karan and Gu, Albert and Donahue, Chris and R{\\'e}, Christopher},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
  note      = {arXiv:2202.09729}
}
""",
    model=RecipeModel(
        pattern="sashimi:s4",
        depth=8,
        d_model=64,
        options={
            "sashimi": {"pool": [4, 4], "expand": 2, "hidden": 2},
            "s4": {"d_state": 64, "measure": "legs"},
        },
        mlp=True,
        norm="layer",
    ),
    training={"batch_size": 32},
    claims=[
        Claim(
            task="SC09, mu-law levels, one second at 16 kHz",
            metric="nats per sample",
            value=1.873,
            source="[V] state-spaces/s4, SaShiMi",
        ),
        Claim(task="SC09, unconditional", metric="FID", value=1.99, source="[V] state-spaces/s4, SaShiMi"),
        Claim(
            task="SC09, unconditional",
            metric="inception score",
            value=5.13,
            source="[V] state-spaces/s4, SaShiMi",
        ),
        Claim(
            task="SC09, unconditional",
            metric="modified inception score",
            value=42.57,
            source="[V] state-spaces/s4, SaShiMi",
        ),
        Claim(task="SC09, unconditional", metric="AM", value=0.74, source="[V] state-spaces/s4, SaShiMi"),
    ],
    notes=(
        "The source counts 5.8M parameters. Its perceptrons have GELU and no gate; ours are gated, with the "
        "same hidden width, so there are more parameters (6.1M). The learning rate is this program's own."
    ),
)

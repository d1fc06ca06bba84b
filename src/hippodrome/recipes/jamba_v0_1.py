"""Jamba v0.1: Mamba, one attention layer in eight, and a mixture of experts in every second layer."""

from hippodrome.config import Claim, Recipe, RecipeModel, periodic

COUNTED = "computed from the authors' configuration (ai21labs/Jamba-v0.1) as transformers builds it"

RECIPE = Recipe(
    name="jamba_v0_1",
    title="Jamba v0.1, 52 billion parameters of which a token uses 12",
    family="hybrid",
    citation="""
@article{lieber2024jamba,
  title   = {Jamba: A Hybrid Transformer-Mamba Language Model},
  author  = {Lieber, Opher and Lenz, Barak and Bata, Hofit and Cohen, Gal and Osin, Jhonathan and others},
  journal = {arXiv preprint arXiv:2403.19887},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern=list(periodic(32)),
        depth=64,
        d_model=4096,
        options={
            "mamba": {"d_state": 16, "taps": 4, "expand": 2, "dt_rank": 256, "norms": "learned"},
            "attention": {"heads": 32, "kv_heads": 8, "rope": False},
            "mlp": {"d_hidden": 14336},
            "moe": {"d_hidden": 14336, "experts": 16, "active": 2, "balance": 0.001},
        },
        tie=False,
    ),
    claims=[
        Claim(
            task="language model, vocabulary 65536", metric="parameters", value=51_570_323_328, source=COUNTED
        ),
        Claim(
            task="language model, vocabulary 65536",
            metric="active parameters",
            value=12_110_311_296,
            source=COUNTED,
        ),
    ],
    notes=(
        "A layer of Jamba is a mixer and a perceptron or mixture, so 32 layers are 64 names here. Attention "
        "mixes in layers 4, 12, 20 and 28, mixtures stand in the odd layers. There are no positions. Norms "
        "add 1e-6 to the mean square where ours between layers add 1e-5. The load balancing loss is off in "
        "the released configuration; its weight there is 0.001."
    ),
)

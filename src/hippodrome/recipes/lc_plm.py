"""LC-PLM: a protein language model of Mambas that read both ways and share their projections."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="lc_plm",
    title="LC-PLM",
    family="diagonal recurrence",
    citation="""
@article{wang2024long,
  title   = {Long-context Protein Language Modeling Using Bidirectional Mamba with Shared Projection Layers},
  author  = {Wang, Yingheng and Wang, Zichen and Sadeh, Gil and Zancato, Luca and Achille, Alessandro and
             Karypis, George and Rangwala, Huzefa},
  journal = {bioRxiv},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="bimamba",
        depth=48,
        d_model=1536,
        options={"bimamba": {"tied": True, "combine": "add", "d_state": 16, "taps": 4, "expand": 2}},
        mlp=False,
        norm="rms",
        tie=False,
    ),
    notes=(
        "As in the authors' released checkpoint (amazon-science/LC-PLM): 48 layers of width 1536, a "
        "vocabulary of 128 of which the 33 tokens of ESM-2 are used, a head of its own. Its file of "
        "3,011,271,376 bytes of float32 holds about 752.8 million parameters; this recipe has "
        "752,788,992. Trained on UniRef with places to fill in, 15 % of them (recalled). The citation is "
        "recalled, not checked. LC-PLM-G, which trains on walks over a graph of proteins, is not part of "
        "this recipe."
    ),
)

"""The resettable S5 of in-context reinforcement learning: four layers without a norm of their own."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="s5_rl",
    title="S5 for in-context RL",
    family="LTI system",
    citation="""
@inproceedings{lu2023structured,
  title     = {Structured State Space Models for In-Context Reinforcement Learning},
  author    = {Lu, Chris and Schroecker, Yannick and Gu, Albert and Parisotto, Emilio and Foerster,
               Jakob and Singh, Satinder and Behbahani, Feryal},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  note      = {arXiv:2303.03982}
}
""",
    model=RecipeModel(
        pattern="s5",
        depth=4,
        d_model=256,
        options={
            "s5": {"d_state": 256, "blocks": 1, "activation": "full_glu", "dt_min": 0.001, "dt_max": 0.1}
        },
        mlp=False,
    ),
    training={"lr": 5e-05, "weight_decay": 0.0, "clip": 0.5},
    notes=(
        "Episodes in a row are kept apart by resets inside the scan. The source trains it by PPO "
        "between dense layers and has no norm in the blocks; blocks here have one. Its tables of "
        "numbers could not be confirmed, so none is claimed."
    ),
)

"""Mega with the set-up of the Long Range Arena's ListOps; the other tasks stand in the notes."""

from hippodrome.config import Claim, Recipe, RecipeModel

TABLE = "[V] Ma et al. 2022, arXiv 2209.10655, results on the Long Range Arena"
TASKS = ("ListOps", "Text", "Retrieval", "Image", "Pathfinder", "Path-X")
WHOLE = (0.6314, 0.9043, 0.9125, 0.9044, 0.9601, 0.9798)

RECIPE = Recipe(
    name="mega_lra",
    title="Mega, Long Range Arena",
    family="attention",
    citation="""
@article{ma2022mega,
  title   = {Mega: Moving Average Equipped Gated Attention},
  author  = {Ma, Xuezhe and Zhou, Chunting and Kong, Xiang and He, Junxian and Gui, Liangke and Neubig, Graham
             and May, Jonathan and Zettlemoyer, Luke},
  journal = {arXiv preprint arXiv:2209.10655},
  year    = {2022}
}
""",
    model=RecipeModel(
        pattern="mega",
        depth=6,
        d_model=80,
        options={"mega": {"d_state": 16, "d_query": 64, "d_value": 160, "bidirectional": True}},
        mlp=True,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.001, "weight_decay": 0.01, "batch_size": 64},
    claims=[
        Claim(task=f"Long Range Arena, {task}", metric="accuracy", value=value, source=TABLE)
        for task, value in zip(TASKS, WHOLE, strict=True)
    ],
    notes=(
        "ListOps: 90,000 steps, 3,000 of them of warm-up, linear decay to zero, Adam with betas .9 and "
        ".98, gradients clipped at 1, mean pooling. The widths are those of SeqBoat's set-up for ListOps, "
        "as Mega's own were not at hand. Text: 4 layers, scale norm, lr .004, 25,000 steps. Retrieval: 6 "
        "layers, lr .003, weight decay .04, 91,960 steps. Image: 8 layers, the Laplace function, batch "
        "norm, lr .01, weight decay .02, 180,000 steps, no dropout. Pathfinder: 6 layers, Laplace, batch "
        "norm, lr .01, 250,000 steps. Path-X: 4 layers, Laplace, lr .01, 125,000 steps. Scale norm and "
        "batch norm are not offered here."
    ),
)

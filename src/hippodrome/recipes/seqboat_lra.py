"""SeqBoat with the set-up of the Long Range Arena's ListOps; the other tasks stand in the notes."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="seqboat_lra",
    title="SeqBoat, Long Range Arena",
    family="attention",
    citation="""
@inproceedings{ren2023sparse,
  title     = {Sparse Modular Activation for Efficient Sequence Modeling},
  author    = {Ren, Liliang and Liu, Yang and Wang, Shuohang and Xu, Yichong and Zhu, Chenguang and
               Zhai, ChengXiang},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  note      = {arXiv:2306.11197}
}
""",
    model=RecipeModel(
        pattern="seqboat",
        depth=6,
        d_model=80,
        options={
            "seqboat": {
                "d_state": 16,
                "d_query": 64,
                "d_value": 160,
                "window": 128,
                "temperature": 0.3,
                "max_positions": 2048,
                "bidirectional": True,
            }
        },
        mlp=True,
        norm="layer",
        dropout=0.1,
    ),
    training={"lr": 0.004, "weight_decay": 0.001, "batch_size": 64},
    notes=(
        "ListOps: 90,000 steps, 27,000 of them of warm-up, linear decay, Adam with betas .9 and .98, "
        "gradients clipped at 1, mean pooling. Text: width 128, values 256, 4 layers, scale norm, lr "
        ".004, weight decay .01, 25,000 steps, temperature .3, local positions. Retrieval: the same "
        "widths, 6 layers, lr .003, weight decay .04, 91,960 steps. Image: width 160, values 320, queries "
        "96, 8 layers, relu^2, batch norm, lr .01, weight decay .02, 180,000 steps, temperature .4. "
        "Pathfinder: width 128, 6 layers, relu^2, lr .01, weight decay .01, 250,000 steps, temperature 1. "
        "Path-X: chunks of 256, lr .01, 125,000 steps. Its accuracies could not be established. Scale "
        "norm and batch norm are not offered here."
    ),
)

"""StNN for the next state of a dynamical system, a reconstruction."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="stnn_lorenz",
    title="StNN (reconstruction), next states from delays by Hankel products",
    family="structured perceptron on delays",
    citation="""
@misc{aluvihare2025low,
  title         = {A Low-complexity Structured Neural Network to Realize States of Dynamical Systems},
  author        = {Aluvihare, H. and Lingsch, L. and Li, X. and Perera, S. M.},
  year          = {2025},
  eprint        = {2503.23697},
  archiveprefix = {arXiv}
}
""",
    model=RecipeModel(
        pattern="stnn",
        depth=1,
        d_model=3,
        options={"stnn": {"delays": 8, "layers": 3, "factors": 2}},
        mlp=False,
        norm="none",
    ),
    training={"lr": 0.003, "weight_decay": 0.0, "batch_size": 32},
    claims=[],
    notes=(
        "A reconstruction: only the abstract of the paper could be read, no code is public, and no number is "
        "claimed. Three maps, each a sum of two products of diagonal and Hankel matrices, leaky rectifiers, "
        "the squared error of one step; the sizes are ours. Made for the states of a system read in order, "
        "three of them at this width: hippodrome train lorenz --model stnn_lorenz. A stack without a norm "
        "adds the network to the state it reads, and the model predicts the change to the next state."
    ),
)

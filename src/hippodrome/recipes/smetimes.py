"""SMETimes: segments of a series and prompts about them through a small language model."""

from hippodrome.config import Recipe, RecipeModel

RECIPE = Recipe(
    name="smetimes",
    title="SMETimes, forecasting by segments over a small language model",
    family="language models for series",
    citation="""
@article{fan2025small,
  title   = {Small but Mighty: Enhancing Time Series Forecasting with Lightweight LLMs},
  author  = {Fan, Haoran and Li, Bin and Weng, Yixuan and Zhou, Shoujun},
  journal = {arXiv preprint arXiv:2503.03594},
  year    = {2025}
}
""",
    model=RecipeModel(
        pattern="mamba2",
        depth=4,
        d_model=128,
        options={"mamba2": {"d_state": 32, "head_dim": 32}},
        forecasting={"kind": "token_forecasting", "segment": 96, "experts": 1},
    ),
    training={"lr": 0.001, "batch_size": 32, "weight_decay": 0.0},
    claims=[],
    notes=(
        "Needs a language model: --language RUN, of hippodrome train on text. Its backbone then takes the "
        "place of the one named here, frozen and with prompts unless -s model.options.forecasting.frozen="
        "false or .prompts=false say otherwise; without --language the one named here, which is ours and "
        "small, learns from the series alone, without prompts. The published set-up, read in the authors' "
        "code: LLaMA-3.2-1B (2048 channels), OPT-1.3B or GPT-2 large (1280 channels), frozen, in half "
        "precision; look-back 672 (--look-back 672), segments of 96 steps, linear maps into and out of the "
        "model, one expert by default (-s model.options.forecasting.experts=4 for more), the weight of its "
        "regulariser zero; Adam, rate 0.001 with a cosine over 10 epochs, batches of 256 rows of one variate "
        "(here 32 windows of all variates, 224 rows of ETTh1), 2 epochs on ETTh1 and 10 on ETTm1; one model "
        "for all horizons, and the last incomplete batch of the test left out, which is not done here. What "
        "differs besides stands with the model (hippodrome.models.token_forecasting). The numbers of the "
        "paper's tables could not be confirmed from a source at hand, so none is claimed."
    ),
)

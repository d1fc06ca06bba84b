"""RecurrentGemma 2B: two layers of RG-LRU to one of attention over a window, a perceptron after each."""

from hippodrome.config import Claim, Layout, Recipe, RecipeModel, Rule

KINDS = ("weight", "bias")
THERE = "model.layers.{i}"
RECURRENT, UNIT = (
    "backbone.blocks.{recurrent_blocks[i]}.mixer",
    "model.layers.{recurrent_layers[i]}.temporal_block",
)
ATTENTION, HEADS = (
    "backbone.blocks.{attention_blocks[i]}.mixer",
    "model.layers.{attention_layers[i]}.temporal_block",
)
CHANNELS = "backbone.blocks.{2i+1}"
RULES = [
    Rule(ours="embedding.weight", theirs=["model.embed_tokens.weight"]),
    Rule(ours="backbone.blocks.{2i}.norm.weight", theirs=[f"{THERE}.temporal_pre_norm.weight"]),
    Rule(ours=f"{CHANNELS}.norm.weight", theirs=[f"{THERE}.channel_pre_norm.weight"]),
    Rule(ours=f"{RECURRENT}.Lambda", theirs=[f"{UNIT}.rg_lru.recurrent_param"], negated=True),
    Rule(
        ours=f"{RECURRENT}.gates.weight",
        theirs=[f"{UNIT}.rg_lru.recurrent_gate_weight", f"{UNIT}.rg_lru.input_gate_weight"],
        dim=2,
    ),
    Rule(
        ours=f"{RECURRENT}.gates.bias",
        theirs=[f"{UNIT}.rg_lru.recurrent_gate_bias", f"{UNIT}.rg_lru.input_gate_bias"],
        dim=1,
    ),
    *[
        rule
        for kind in KINDS
        for rule in (
            Rule(ours=f"{RECURRENT}.in_proj.{kind}", theirs=[f"{UNIT}.linear_{x}.{kind}" for x in "xy"]),
            Rule(ours=f"{RECURRENT}.conv.{kind}", theirs=[f"{UNIT}.conv_1d.{kind}"]),
            Rule(ours=f"{RECURRENT}.out_proj.{kind}", theirs=[f"{UNIT}.linear_out.{kind}"]),
            Rule(
                ours=f"{ATTENTION}.in_proj.{kind}",
                theirs=[f"{HEADS}.{x}_proj.{kind}" for x in "qkv"],
                sizes="heads",
            ),
            Rule(ours=f"{ATTENTION}.out_proj.{kind}", theirs=[f"{HEADS}.o_proj.{kind}"]),
            Rule(
                ours=f"{CHANNELS}.mixer.mlp.fc1.{kind}",
                theirs=[f"{THERE}.mlp_block.{x}_proj.{kind}" for x in ("up", "gate")],
            ),
            Rule(ours=f"{CHANNELS}.mixer.mlp.fc2.{kind}", theirs=[f"{THERE}.mlp_block.down_proj.{kind}"]),
        )
    ],
    Rule(ours="backbone.norm.weight", theirs=["model.final_norm.weight"]),
    Rule(ours="head.weight", theirs=["lm_head.weight"]),
]

RECIPE = Recipe(
    name="recurrentgemma_2b",
    title="RecurrentGemma 2B",
    family="hybrid",
    citation="""
@article{botev2024recurrentgemma,
  title   = {{RecurrentGemma}: Moving Past Transformers for Efficient Open Language Models},
  author  = {Botev, Aleksandar and De, Soham and Smith, Samuel L. and Fernando, Anushan and others},
  journal = {arXiv preprint arXiv:2404.07839},
  year    = {2024}
}
""",
    model=RecipeModel(
        pattern="rg_lru+mlp+rg_lru+mlp+attention+mlp",
        depth=52,
        d_model=2560,
        options={
            "rg_lru": {
                "d_recurrent": 2560,
                "taps": 4,
                "gate_blocks": 10,
                "activation": "gelu_tanh",
                "bias": True,
                "whole_first": True,
            },
            "attention": {
                "heads": 10,
                "kv_heads": 1,
                "head_dim": 256,
                "window": 2048,
                "rope_share": 0.5,
                "out_bias": True,
            },
            "mlp": {"d_hidden": 7680, "activation": "gelu_tanh", "bias": True},
        },
        norm="rms1",
        norm_eps=1e-6,
        language={"embedding_scale": 50.5, "logit_cap": 30.0},
    ),
    claims=[
        Claim(
            task="language model, vocabulary 256000, head tied to the embedding",
            metric="parameters",
            value=2_682_862_080,
            source="computed from the preset in google-deepmind/recurrentgemma as transformers builds it",
        ),
    ],
    notes=(
        "26 layers, each a mixer and a perceptron, are 52 names here. Embeddings are scaled by the root of "
        "the width, 50.6, which the authors' code and transformers round to bfloat16: 50.5. The gates of "
        "RG-LRU see one of 10 runs of channels each, and the first token enters whole. That keys and values "
        "have one head (multi-query attention) is recalled: the preset does not say it."
    ),
    layouts={"recurrent_gemma": Layout(rules=RULES, tied={"lm_head.weight": "model.embed_tokens.weight"})},
)

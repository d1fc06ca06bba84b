"""Configuration: a constructor's signature is its schema, a kind is a file's name, ``build`` alone builds.

A *spec* is a plain dict: ``{"kind": "mamba", "d_model": 64}``. A new file under ``mixers/`` is a new kind
with no other file touched. Nothing is imported before it is asked for: listing kinds needs no PyTorch.
"""

from hippodrome.config.allocation import SYMBOLS, allocate, periodic
from hippodrome.config.find import FAMILIES, choices, find, kinds, suggest
from hippodrome.config.layout import MAMBA2_PARTS, MAMBA_PARTS, Layout, Rule
from hippodrome.config.patterns import (
    BOTH_WAYS,
    bare,
    count_parameters,
    match_width,
    option_kinds,
    parse_pattern,
    pattern_kinds,
    pattern_layers,
    pattern_text,
    split_shape,
    stack_spec,
)
from hippodrome.config.recipe import Claim, Recipe, RecipeModel
from hippodrome.config.schema import build, schema, validate
from hippodrome.config.sizes import grid, own_options, variates, width_step, with_sizes, with_small_sizes

__all__ = [
    "BOTH_WAYS",
    "FAMILIES",
    "MAMBA2_PARTS",
    "MAMBA_PARTS",
    "SYMBOLS",
    "Claim",
    "Layout",
    "Recipe",
    "RecipeModel",
    "Rule",
    "allocate",
    "bare",
    "build",
    "choices",
    "count_parameters",
    "find",
    "grid",
    "kinds",
    "match_width",
    "option_kinds",
    "own_options",
    "parse_pattern",
    "pattern_kinds",
    "pattern_layers",
    "pattern_text",
    "periodic",
    "schema",
    "split_shape",
    "stack_spec",
    "suggest",
    "validate",
    "variates",
    "width_step",
    "with_sizes",
    "with_small_sizes",
]

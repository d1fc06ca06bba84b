"""How a checkpoint of another program names its tensors: rename rules as data, which can be inverted."""

from pydantic import BaseModel, ConfigDict, Field


class Rule(BaseModel):
    """One tensor of ours, for every number that its name has a place for, and the tensors it is made of.

    ``ours`` is a name with places: ``{i}`` binds a number, ``{2i}`` and ``{2i+1}`` bind half of an even or an
    odd one. ``theirs`` are names with the same letters, which may look a number up: ``{uses[i]}`` is the i-th
    of the list ``uses`` that the reader of the configuration gives. In ``ours`` ``{uses[i]}`` binds the place
    that a number has in that list, and the rule is for those numbers alone. Several names are joined along
    ``dim``, in order; ``name[1/2]`` is the second of two equal parts of that tensor along ``dim``. With
    ``stack`` the names have a place for that letter, which counts along a new first axis of ours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ours: str
    theirs: list[str] = Field(min_length=1)
    dim: int = Field(default=0, ge=0, description="the axis of theirs along which parts are joined or cut")
    sizes: str | None = Field(
        default=None, description="name of the list of sizes of the joined tensors; None where they are equal"
    )
    stack: str | None = Field(default=None, description="the letter that counts along the first axis of ours")
    negated: bool = Field(default=False, description="whether theirs has the numbers with the other sign")


class Layout(BaseModel):
    """All names of a layout: the rules, names of further copies, and names that hold nothing of use.

    A copy and its source that end in a point stand for all names that begin so, one pair for each number of
    the lists that they look up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rules: list[Rule]
    tied: dict[str, str] = Field(
        default={}, description="names that may stand for a copy of another of theirs, as a tied head does"
    )
    ignored: list[str] = Field(
        default=[], description="regular expressions of names that follow from the configuration"
    )
    pickled: bool = Field(
        default=False, description="whether its own program reads one pickle, with every copy in it"
    )


MAMBA_PARTS = (
    "in_proj.weight",
    "in_proj.bias",
    "conv1d.weight",
    "conv1d.bias",
    "x_proj.weight",
    "dt_proj.weight",
    "dt_proj.bias",
    "A_log",
    "D",
    "out_proj.weight",
    "out_proj.bias",
)
"""The tensors of a Mamba layer, by the names that its authors gave them, which all layouts and we kept."""

MAMBA2_PARTS = (
    "in_proj.weight",
    "in_proj.bias",
    "conv1d.weight",
    "conv1d.bias",
    "dt_bias",
    "A_log",
    "D",
    "norm.weight",
    "out_proj.weight",
    "out_proj.bias",
)
"""Those of a Mamba-2 layer."""

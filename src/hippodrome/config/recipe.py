"""A recipe: a published system as data, with its source and the numbers that the source claims."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hippodrome.config.layout import Layout


class Claim(BaseModel):
    """A number that a source reports: the task, the metric, its value, and where it stands (table, page)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str
    metric: str
    value: float
    source: str


class RecipeModel(BaseModel):
    """The backbone of a system: a pattern of mixers, its depth and width, and options by kind of mixer.

    The pattern is text or a list of kinds, None for a system that has no backbone; ``depth`` counts its
    names, perceptrons among them where it names them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    pattern: str | list[str] | None
    depth: int = Field(ge=1)
    d_model: int = Field(ge=1)
    options: dict[str, dict[str, Any]] = {}
    mlp: bool | list[str] | None = None
    d_hidden: int | None = None
    norm: str = "rms"
    norm_eps: float = 1e-5
    scale: float | dict[str, float] = Field(
        default=1.0, description="of what blocks add to the residual stream, or by the name of the layer"
    )
    dropout: float = 0.0
    post_norm: bool = Field(default=False, description="whether norms stand behind the residuals")
    tie: bool = Field(default=True, description="whether a language model's head is its embedding")
    language: dict[str, Any] = Field(default={}, description="other settings of a language model around it")
    vision: dict[str, Any] = Field(default={}, description="settings of a picture model around the backbone")
    forecasting: dict[str, Any] = Field(
        default={}, description="settings of a forecaster around the backbone"
    )

    def stack(
        self,
        d_model: int | None = None,
        depth: int | None = None,
        sizes: list[int] | None = None,
        variates: int | None = None,
    ) -> dict[str, Any] | None:
        """The spec of the backbone, None where there is none, at another width, depth, grid (of pictures) or
        number of variates (of series) where one is given."""
        from hippodrome.config.patterns import split_shape, stack_spec

        if self.pattern is None:
            return None
        options = self.options
        shape = split_shape(self.pattern)[0]
        if variates is not None and shape is not None and "variates" in options.get(shape, {}):
            options = {**options, shape: {**options[shape], "variates": variates}}
        if sizes is not None:
            options = {k: {**v, "sizes": sizes} if "sizes" in v else v for k, v in options.items()}
        return stack_spec(
            self.pattern,
            d_model or self.d_model,
            depth or self.depth,
            options=options,
            mlp=self.mlp,
            d_hidden=self.d_hidden,
            norm=self.norm,
            dropout=self.dropout,
            norm_eps=self.norm_eps,
            scale=self.scale,
            post_norm=self.post_norm,
        )


class Recipe(BaseModel):
    """A published system: what it is made of, how it is trained, and what its authors report.

    ``family`` names the engine; ``training`` holds settings of the trainer by their names there; ``layouts``
    say how checkpoints of the system, and of its sisters of other sizes, name their tensors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    family: str
    citation: str = Field(description="BibTeX", min_length=1)
    model: RecipeModel
    training: dict[str, Any] = {}
    claims: list[Claim] = []
    layouts: dict[str, Layout] = {}
    notes: str = ""

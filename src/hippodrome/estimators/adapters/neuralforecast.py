"""Our forecasting models as models of neuralforecast. Importing this file imports neuralforecast.

It also tells neuralforecast the name under which these models are saved, so import it before
``NeuralForecast.load`` in a new process.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from neuralforecast.common._base_model import BaseModel
from neuralforecast.core import MODEL_FILENAME_DICT
from neuralforecast.losses.pytorch import MAE, DistributionLoss, HuberMQLoss, MQLoss
from torch import Tensor, nn

from hippodrome import config
from hippodrome.estimators.adapters._spec import forecasting_spec
from hippodrome.train.optimizer import optimizer_groups, set_rate


class HippodromeModel(BaseModel):
    """A forecasting model of ours in the hands of neuralforecast: windows, loss, training, saving are its.

    Without ``n_series`` each series is a window of its own. With it all series are the variates of one
    window, as backbones that read across variates need it; covariates of all are then told to each.

    Point losses train the point. Losses of several quantiles train the point and its distances to each, so
    that quantiles do not cross. For a distribution the same outputs go through one linear map, which is
    learned, to its parameters.

    A value that neuralforecast says is not available is missing to the model, and no zero. Windows are
    normalized by the model. Covariates are not, nor are windows where a recipe says so: ``scaler_type`` does
    that, which for a distribution is "standard" unless it is said.

    Args:
        model: a mixer, a pattern or a recipe, as for ``hippodrome.Forecaster``.
        h: steps to forecast.
        input_size: steps of the past that a forecast reads.
        n_series: series that are forecast together; None for each by itself.
        futr_exog_list: columns that are known ahead.
        hist_exog_list: columns that are seen in the past alone.
        stat_exog_list: columns of ``static_df``.
        width: channels of the backbone; None takes 64, or the recipe's.
        depth: its layers; None takes 2, or the recipe's.
        dropout: in the backbone; None takes 0.1, or the recipe's.
        loss: of neuralforecast; None takes MAE().
        optimizer: None takes AdamW with the learning rates that our mixers ask for, and no decay.
        alias: name of the forecast's column; None takes ``model``.
        trainer_kwargs: settings of Lightning's trainer.

    The other arguments are those of every model of neuralforecast.
    """

    EXOGENOUS_FUTR: ClassVar[bool] = True
    EXOGENOUS_HIST: ClassVar[bool] = True
    EXOGENOUS_STAT: ClassVar[bool] = True
    RECURRENT: ClassVar[bool] = False
    MULTIVARIATE = False

    def __init__(
        self,
        model: str,
        h: int,
        input_size: int,
        n_series: int | None = None,
        futr_exog_list: list[str] | None = None,
        hist_exog_list: list[str] | None = None,
        stat_exog_list: list[str] | None = None,
        width: int | None = None,
        depth: int | None = None,
        dropout: float | None = None,
        loss: nn.Module | None = None,
        valid_loss: nn.Module | None = None,
        max_steps: int = 1000,
        learning_rate: float = 1e-3,
        num_lr_decays: int = -1,
        early_stop_patience_steps: int = -1,
        val_monitor: str = "ptl/val_loss",
        val_check_steps: int = 100,
        batch_size: int = 32,
        valid_batch_size: int | None = None,
        windows_batch_size: int = 128,
        inference_windows_batch_size: int = 256,
        start_padding_enabled: bool = False,
        training_data_availability_threshold: float | list[float] = 0.0,
        step_size: int = 1,
        scaler_type: str | None = None,
        random_seed: int = 1,
        drop_last_loader: bool = False,
        alias: str | None = None,
        optimizer: type[torch.optim.Optimizer] | None = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        lr_scheduler: type[torch.optim.lr_scheduler.LRScheduler] | None = None,
        lr_scheduler_kwargs: dict[str, Any] | None = None,
        dataloader_kwargs: dict[str, Any] | None = None,
        trainer_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        loss = MAE() if loss is None else loss
        distribution = bool(loss.is_distribution_output)
        self.MULTIVARIATE = n_series is not None
        super().__init__(
            h=h,
            input_size=input_size,
            n_series=n_series,
            futr_exog_list=futr_exog_list,
            hist_exog_list=hist_exog_list,
            stat_exog_list=stat_exog_list,
            loss=loss,
            valid_loss=valid_loss,
            max_steps=max_steps,
            learning_rate=learning_rate,
            num_lr_decays=num_lr_decays,
            early_stop_patience_steps=early_stop_patience_steps,
            val_monitor=val_monitor,
            val_check_steps=val_check_steps,
            batch_size=batch_size,
            valid_batch_size=valid_batch_size,
            windows_batch_size=windows_batch_size,
            inference_windows_batch_size=inference_windows_batch_size,
            start_padding_enabled=start_padding_enabled,
            training_data_availability_threshold=training_data_availability_threshold,
            step_size=step_size,
            scaler_type=scaler_type or ("standard" if distribution else "identity"),
            random_seed=random_seed,
            drop_last_loader=drop_last_loader,
            alias=model if alias is None else alias,
            optimizer=optimizer,
            optimizer_kwargs=optimizer_kwargs,
            lr_scheduler=lr_scheduler,
            lr_scheduler_kwargs=lr_scheduler_kwargs,
            dataloader_kwargs=dataloader_kwargs,
            **(trainer_kwargs or {}),
        )
        # Lightning notes the arguments of every constructor in the line; ours alone build the model anew.
        self.hparams.clear()
        self.hparams.update({**given, "loss": loss})
        outputs: int = loss.outputsize_multiplier  # type: ignore[assignment]
        self.order: list[int] = []
        if isinstance(loss, MQLoss | HuberMQLoss):
            wanted = loss.quantiles.tolist()
            levels = sorted(set(wanted))
            self.order = [levels.index(level) for level in wanted]
        else:
            levels = [i / (outputs + 1) for i in range(1, outputs + 1)] if outputs > 1 else []
        self.outputs_of = nn.Linear(1 + outputs, outputs) if outputs > 1 and not self.order else None
        variates = n_series or 1
        facts = {
            "channels": variates,
            "look_back": input_size,
            "horizon": h,
            "quantiles": levels,
            "observed": variates * len(self.hist_exog_list),
            "known": variates * len(self.futr_exog_list),
            "static": variates * len(self.stat_exog_list),
        }
        self.network = config.build(forecasting_spec(model, facts, width, depth, dropout))

    def forward(self, windows_batch: Mapping[str, Tensor | None]) -> Float[Tensor, "b h outputs"]:
        """Outputs of the loss, as neuralforecast lays them out, from the parts of its windows."""
        values, seen = windows_batch["insample_y"], windows_batch["insample_mask"]
        assert values is not None
        if seen is not None:
            values = torch.where(seen > 0, values, torch.nan)
        observed, ahead = (self._flat(windows_batch[name]) for name in ("hist_exog", "futr_exog"))
        past = [values] + [part[:, : values.shape[1]] for part in (observed, ahead) if part is not None]
        known = None if ahead is None else ahead[:, values.shape[1] :]
        static = windows_batch["stat_exog"]
        if static is not None and self.MULTIVARIATE:
            static = static.reshape(1, -1).expand(len(values), -1)
        found, _ = self.network(torch.cat(past, -1), known=known, static=static)
        point, quantiles = found[..., :1], found[..., 1:]
        if not quantiles.shape[-1]:
            return point[..., 0]
        # The model keeps the point out of the quantiles' gradient, since it has an error of its own there.
        quantiles = quantiles + (point - point.detach())
        if self.outputs_of is None:
            return quantiles[..., self.order].flatten(2)
        outputs = self.outputs_of(torch.cat([point, quantiles], -1))
        # A distribution wants parameter after parameter, a mixture series after series.
        return (outputs.transpose(2, 3) if isinstance(self.loss, DistributionLoss) else outputs).flatten(2)

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer that was asked for, or AdamW over our groups, with neuralforecast's schedule."""
        asked: Any = self.optimizer
        if asked is not None:
            return super().configure_optimizers()
        # What neuralforecast calls with the parameters and the rate; its schedule goes around the result.
        self.optimizer: Any = self._adamw
        try:
            return super().configure_optimizers()
        finally:
            self.optimizer = None

    def _adamw(self, params: Any, lr: float) -> torch.optim.AdamW:
        groups = optimizer_groups(self.network, 0.0)
        inside = {id(parameter) for parameter in self.network.parameters()}
        beside = [p for p in params if p.requires_grad and id(p) not in inside]
        if beside:
            groups.append({"params": beside, "weight_decay": 0.0, "lr_factor": 1.0, "max_lr": float("inf")})
        optimizer = torch.optim.AdamW(groups, lr=lr)
        set_rate(optimizer, lr, 1.0)
        return optimizer

    def _flat(self, covariates: Tensor | None) -> Tensor | None:
        """Covariates (b, t, columns), of all series one after the other."""
        if covariates is None or not self.MULTIVARIATE:
            return covariates
        return covariates.permute(0, 2, 1, 3).flatten(2)


def neuralforecast_model(model: str = "s4d", *, h: int, input_size: int, **settings: Any) -> HippodromeModel:
    """Any of our forecasting models for ``NeuralForecast(models=[...], freq=...)``.

    ``settings`` are those of ``HippodromeModel``; what is none of them goes to Lightning's trainer, as with
    every model of neuralforecast (``accelerator="cpu"``, ``enable_progress_bar=False``).

    Raises:
        ValueError: a model that is not known, or sizes that do not fit it.
    """
    own = set(inspect.signature(HippodromeModel.__init__).parameters)
    trainer = {name: value for name, value in settings.items() if name not in own}
    trainer |= settings.pop("trainer_kwargs", None) or {}
    ours = {name: value for name, value in settings.items() if name in own}
    return HippodromeModel(model, h, input_size, **ours, trainer_kwargs=trainer)


MODEL_FILENAME_DICT.setdefault("hippodromemodel", HippodromeModel)

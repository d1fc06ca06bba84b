"""The imputer as an estimator: a data frame with holes in, one without them out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hippodrome import runs
from hippodrome.data.base import Task
from hippodrome.data.imputation import Grids, carried, imputation_task, interpolated, read_grids
from hippodrome.estimators._cells import filled
from hippodrome.estimators._frames import endings
from hippodrome.estimators.base import Estimator

if TYPE_CHECKING:
    import pandas

    from hippodrome.estimators._charts import Drawing


class Imputer(Estimator):
    """Fills holes in series, having learned to find cells that were hidden from it.

    Args:
        model: a mixer or a pattern, as for ``hippodrome race``. One that reads both ways (bi-s4d, bi-mamba,
            hydra) fills a hole in from both sides, any other from the steps before.
        window: steps that are read together; a hole should be much shorter.
        hide: what training hides: "points", "spans" of steps, whole "variates" of a window, or "mixed".
        mask_rate: share of the cells that training hides.
        span: mean steps of a hidden stretch; None takes that of the holes in the data, or 8.
        quantiles: levels of the filled value; pairs around the middle make the columns ``lo`` and ``hi``.
        targets: columns to fill in; None takes all that hold numbers (long form: ``y``).
        gaps: "refuse" rows that are absent, or "fill" them in too: the frame comes back with them.
        irregular: whether steps between rows differ; holes are then filled by the time that passed.
        width: channels of the backbone.
        depth: its layers.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate.
        batch_size: windows a step.
        dropout: in the backbone.
        seed: of weights, order and what is hidden.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    def __init__(
        self,
        model: str = "bi-s4d",
        window: int = 96,
        hide: str = "mixed",
        mask_rate: float = 0.25,
        span: int | None = None,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        targets: list[str] | None = None,
        gaps: str = "refuse",
        irregular: bool = False,
        width: int = 64,
        depth: int = 2,
        budget: str = "30s",
        lr: float = 2e-3,
        batch_size: int = 32,
        dropout: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.window, self.hide, self.mask_rate, self.span = model, window, hide, mask_rate, span
        self.quantiles, self.targets, self.gaps, self.irregular = quantiles, targets, gaps, irregular
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, df: "pandas.DataFrame") -> "Imputer":
        """Learn from a long frame (unique_id, ds, y), or a wide one (a column of stamps, one a variate).

        About a fifth of the cells is held back, half of it to choose the weights by, half for ``score``.
        """
        df = self._whole(df)
        self._train(self._task(self._grids(df)))
        self.frame_ = df
        return self

    def transform(self, df: "pandas.DataFrame | None" = None, intervals: bool = False) -> "pandas.DataFrame":
        """The frame (None: the one learned from) with its holes filled, all other cells as they were.

        ``intervals`` adds columns such as ``y-lo-80`` and ``y-hi-80``, empty but where a hole was filled.
        """
        df = self._frame(df)
        grids = self._read(df)
        ends = self._ends()
        result = df.copy()
        columns = {str(name): name for name in df.columns}
        whole = {name: np.full((len(df), 1 + len(ends)), np.nan) for name in grids.names}
        holes = dict.fromkeys(grids.names, 0)
        for one, found in zip(grids.series, self._found(grids), strict=True):
            for j, name in enumerate(grids.names):
                hole = np.isnan(one.values[:, j])
                whole[name][one.rows, 0] = np.where(hole, found[:, j, 0], one.values[:, j])
                whole[name][one.rows[hole], 1:] = found[hole, j, 1:]
                holes[name] += int(hole.sum())
        for name, cells in whole.items():
            if not holes[name]:
                continue
            result[columns[name]] = cells[:, 0]
            if intervals:
                for i, end in enumerate(ends, 1):
                    result[f"{name}{end}"] = cells[:, i]
        return result

    def fit_transform(self, df: "pandas.DataFrame", intervals: bool = False) -> "pandas.DataFrame":
        """``fit``, then ``transform`` of the same frame."""
        return self.fit(df).transform(df, intervals)

    def holes(self, df: "pandas.DataFrame | None" = None) -> "pandas.DataFrame":
        """The cells that ``transform`` fills, one a row: ``row`` from 1, ``unique_id`` of a long frame,
        ``ds``, ``column``, ``value`` and its quantiles."""
        import pandas

        df = self._frame(df)
        grids = self._read(df)
        names = ["value", *(f"value{end}" for end in self._ends())]
        rows = []
        for one, found in zip(grids.series, self._found(grids), strict=True):
            for step, j in np.argwhere(np.isnan(one.values)).tolist():
                place = {"row": int(one.rows[step]) + 1, "unique_id": one.name, "ds": one.stamps[step]}
                cells = dict(zip(names, found[step, j].tolist(), strict=True))
                rows.append({**place, "column": grids.names[j], **cells})
        result = pandas.DataFrame(rows, columns=["row", "unique_id", "ds", "column", *names])
        return result if "unique_id" in df.columns else result.drop(columns="unique_id")

    def score(self, df: "pandas.DataFrame | None" = None) -> dict[str, dict[str, float]]:
        """Errors on cells with known values that were hidden and held back, beside those of simple fillings.

        Mean squared and absolute error on the scale of the train data, over whole series: of the "model", of
        "linear interpolation", of the "last value carried" and of the train "mean"; of the model also the
        "coverage" of its outermost quantiles. On the frame learned from these are the cells that training did
        not see; on another frame cells drawn in the same way.
        """
        model = self._network
        task = self._task(self._read(self._frame(df)))
        windows: Any = task.test
        location, scale = (part.double().cpu().numpy() for part in (model.location, model.scale))
        said: dict[str, list[np.ndarray]] = {}
        covered: list[np.ndarray] = []
        for one in windows.series:
            asked = ~np.isnan(one.asked)
            wanted = one.asked[asked]
            found = filled(model, one.values, self.window, one.dt)
            guesses = {
                "model": found[..., 0],
                "linear interpolation": interpolated(one.values),
                "last value carried": carried(one.values),
                "mean": np.broadcast_to(location, one.values.shape),
            }
            size = np.broadcast_to(scale, one.values.shape)[asked]
            for name, guess in guesses.items():
                # A series with nothing to see of a variate leaves simple fillings with the train mean.
                guess = np.where(np.isnan(guess), location, guess)
                said.setdefault(name, []).append((guess[asked] - wanted) / size)
            if len(model.quantiles) > 1:
                covered.append((wanted >= found[..., 1][asked]) & (wanted <= found[..., -1][asked]))
        result = {}
        for name, parts in said.items():
            errors = np.concatenate(parts)
            result[name] = {"mse": float(np.square(errors).mean()), "mae": float(np.abs(errors).mean())}
        if covered:
            result["model"]["coverage"] = float(np.concatenate(covered).mean())
        return result

    def chart(self, df: "pandas.DataFrame | None" = None, title: str = "Filled in") -> "Drawing":
        """The columns with the most holes, of all series, around these, with bands where there are any."""
        from hippodrome.estimators._cell_charts import Filling, filling

        grids = self._read(self._frame(df))
        long = len(grids.series) > 1
        drawn = []
        for one, found in zip(grids.series, self._found(grids), strict=True):
            holes = np.isnan(one.values)
            for j, name in enumerate(grids.names):
                cells = np.where(holes[:, j, None], found[:, j], np.nan)
                panel = Filling(
                    one.name if long else name,
                    one.stamps,
                    one.values[:, j],
                    cells[:, 0],
                    cells[:, min(1, cells.shape[1] - 1)],
                    cells[:, -1],
                )
                drawn.append((int(holes[:, j].sum()), panel))
        drawn.sort(key=lambda pair: -pair[0])
        kept = [panel for count, panel in drawn if count] or [drawn[0][1]]
        levels = self._network.quantiles
        return filling(kept, title, 100 * (levels[-1] - levels[0]) if len(levels) > 1 else None)

    def _ends(self) -> list[str]:
        """What follows a name in the columns of its quantiles."""
        return [end for end, _ in endings(self._network.quantiles)[1:]]

    def _found(self, grids: Grids) -> list[np.ndarray]:
        """Point and quantiles of every cell of each series."""
        return [filled(self._network, one.values, self.window, one.dt) for one in grids.series]

    def _frame(self, df: "pandas.DataFrame | None") -> "pandas.DataFrame":
        self._fitted()
        df = getattr(self, "frame_", None) if df is None else df
        if df is None:
            raise ValueError("this imputer was loaded and holds no series: give it the frame to fill in")
        return self._whole(df)

    def _whole(self, df: "pandas.DataFrame") -> "pandas.DataFrame":
        """The frame with a row for each that is absent, where these are to be filled in: rows by series."""
        if self.gaps == "refuse":
            return df
        grids = self._grids(df)
        rows = np.concatenate([one.rows for one in grids.series])
        if (rows >= 0).all():
            return df
        whole = df.iloc[np.maximum(rows, 0)].reset_index(drop=True)
        whole = whole.where(np.broadcast_to((rows >= 0)[:, None], whole.shape))
        whole[grids.time] = np.concatenate([one.stamps for one in grids.series])
        if "unique_id" in whole.columns:
            names = [np.full(len(one.rows), one.name, dtype=object) for one in grids.series]
            whole["unique_id"] = np.concatenate(names)
        return whole

    def _grids(self, df: "pandas.DataFrame") -> Grids:
        return read_grids(df, targets=self.targets, irregular=self.irregular, gaps=self.gaps)

    def _read(self, df: "pandas.DataFrame") -> Grids:
        grids = self._grids(df)
        if len(grids.names) != self._network.channels:
            raise ValueError(
                f"this imputer learned {self._network.channels} variates, and the frame has "
                f"{len(grids.names)} ({', '.join(grids.names)}). Give the columns it learned from"
            )
        return grids

    def _task(self, grids: Grids) -> Task:
        return imputation_task(
            grids,
            length=self.window,
            split=None,
            hide=self.hide,  # type: ignore[arg-type]  # a word from the user, which the task checks
            mask_rate=self.mask_rate,
            eval_rate=None,
            span=self.span,
            seed=self.seed,
        )

    def _facts(self) -> dict[str, Any]:
        return {"quantiles": list(self.quantiles)}

    def _open(self, run: runs.Run) -> None:
        super()._open(run)
        hidden = run.details.get("hidden", {})
        self.window = run.details.get("window", self.window)
        self.hide = hidden.get("how", self.hide)
        self.mask_rate = hidden.get("in training", self.mask_rate)
        self.span = hidden.get("span", self.span)

"""The sequence classifier as an estimator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippodrome import runs
from hippodrome.data._augment import standardized, with_variety
from hippodrome.data._labelled import labelled_task, stratified
from hippodrome.data.base import Task
from hippodrome.estimators.base import Estimator

MEMBERS = "members"
"""Where a run folder holds the other models of a classifier that averages several."""


class Classifier(Estimator):
    """Classifies sequences of values, of any length.

    Args:
        model: a mixer or a pattern, as for ``hippodrome race``.
        validation: share of the sequences, of each class, that the best weights are chosen by.
        normalize: whether each sequence has its own mean and deviation taken away, channel by channel: helps
            where level and size say nothing of the class.
        augment: how strongly training sequences are warped in time, scaled and jittered, anew each time they
            are seen; 0 for not at all, 1 for the usual. For few sequences.
        members: models that are trained, each with weights and a cut of its own, whose probabilities are
            averaged. Each has the whole budget.
        pooling: what is read of a sequence: the "mean" of its features, the "last", or "both".
        width: channels of the backbone.
        depth: its layers.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate.
        batch_size: sequences a step.
        dropout: in the backbone.
        seed: of weights, order and the cut.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    def __init__(
        self,
        model: str = "s4d",
        validation: float = 0.2,
        normalize: bool = False,
        augment: float = 0.0,
        members: int = 1,
        pooling: str = "both",
        width: int = 64,
        depth: int = 2,
        budget: str = "30s",
        lr: float = 4e-3,
        batch_size: int = 16,
        dropout: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.validation, self.normalize, self.augment = model, validation, normalize, augment
        self.members, self.pooling = members, pooling
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, X: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray) -> "Classifier":
        """Learn from sequences (n, t) or (n, t, c), or a list of (t,) or (t, c), and a label for each."""
        cases, labels = _cases(X), np.asarray(y)
        if labels.shape != (len(cases),):
            raise ValueError(
                f"there is one label for each sequence: {len(cases)} sequences came with labels of shape "
                f"{labels.shape}. Give a flat list of as many"
            )
        if self.members < 1:
            raise ValueError(f"one model is trained at least; got members={self.members}. Ask for 1 or more")
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if self.normalize:
            cases = [standardized(case) for case in cases]
        members = self.members  # opening the first model says what its folder holds
        self._train(self._task(cases, indices, self.seed))
        for i in range(1, members):
            other = self._member(i)
            other._train(self._task(cases, indices, other.seed))
        self._gather()
        self.members = members
        return self

    def _task(self, cases: list[np.ndarray], indices: np.ndarray, seed: int) -> Task:
        """The task of one model: its own cut of the sequences."""
        keep, held = stratified(indices, np.arange(len(cases)), self.validation, seed)
        details = {"source": "arrays", "label type": self.classes_.dtype.kind}
        task = labelled_task(
            cases.__getitem__,
            indices,
            # The held part serves as test too: an estimator's user keeps a test set of their own.
            (keep, held, held),
            [str(name) for name in self.classes_.tolist()],
            "arrays",
            "X, y",
            {**details, "normalized": True} if self.normalize else details,
            lengths=np.array([len(case) for case in cases]),
        )
        return with_variety(task, self.augment, seed)

    def _member(self, i: int) -> "Classifier":
        """A classifier like this one, with a seed of its own and a run folder inside this one's."""
        options = {**self.get_params(), "members": 1, "seed": self.seed + i}
        return Classifier(**{**options, "folder": self._fitted().folder / MEMBERS / str(i)})

    def _gather(self) -> None:
        """Open the other models that the run folder holds."""
        run = self._fitted()
        device = str(next(run.model.parameters()).device)
        places = sorted((run.folder / MEMBERS).glob("*"), key=lambda place: int(place.name))
        self.others_ = [runs.load(place, device).model for place in places]

    def predict(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:
        """The likeliest class of each sequence, as the labels that were learned."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), in the order of ``classes_``."""
        model = self._network
        cases = _cases(X)
        if self._fitted().details.get("normalized"):
            cases = [standardized(case) for case in cases]
        for i, case in enumerate(cases):
            if case.shape[1] != model.channels:
                raise ValueError(
                    f"this classifier learned {model.channels} channels a step; sequence {i} has "
                    f"{case.shape[1]}. Give (n, t) for one channel, or (n, t, c)"
                )
        device = next(model.parameters()).device
        found = []
        with torch.no_grad():
            for first in range(0, len(cases), 64):
                rows = [torch.from_numpy(case) for case in cases[first : first + 64]]
                lengths = torch.tensor([len(row) for row in rows], device=device)
                padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
                chances = [one.logits(padded, lengths).double().softmax(-1) for one in (model, *self.others_)]
                found.append(torch.stack(chances).mean(0).cpu().numpy())
        return np.concatenate(found)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator that it takes apart or puts into a search."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(three_d_array=True),
        )

    def score(self, X: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray) -> float:
        """The share of sequences whose class is told right."""
        return float((self.predict(X) == np.asarray(y)).mean())

    def _open(self, run: runs.Run) -> None:
        super()._open(run)
        kind = run.details.get("label type", "U")
        self.classes_ = np.array([_label(name, kind) for name in self._network.classes])
        self._gather()
        self.normalize = bool(run.details.get("normalized", False))
        self.augment = run.details.get("augment", 0.0)
        self.members, self.pooling = 1 + len(self.others_), run.spec.get("pooling", self.pooling)

    def _facts(self) -> dict[str, Any]:
        return {"pooling": self.pooling}


def _cases(X: Sequence[Any] | np.ndarray) -> list[np.ndarray]:
    """Sequences as a list of (t, c) in float32."""
    cases = []
    for i, one in enumerate(X):
        case = np.asarray(one, dtype=np.float32)
        if case.ndim not in (1, 2) or not len(case):
            raise ValueError(
                f"a sequence is (t,) or (t, c) with a step at least; sequence {i} is {case.shape}"
            )
        cases.append(case[:, None] if case.ndim == 1 else case)
    if not cases:
        raise ValueError("there is no sequence: X is empty")
    return cases


def _label(name: str, kind: str) -> Any:
    """A class's name as the kind of label it was."""
    if kind == "b":
        return name == "True"
    return int(name) if kind in "iu" else float(name) if kind == "f" else name

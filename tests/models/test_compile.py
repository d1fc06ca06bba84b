"""The loss of every model compiles in one graph and keeps its gradients."""

import pytest
import torch

from hippodrome.models.base import Model
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.models.language import LanguageModel


@pytest.mark.compiled
@pytest.mark.parametrize("kind", [LanguageModel, ClassificationModel, ForecastingModel])
def test_loss_compiles_in_one_graph(kind: type[Model]) -> None:
    model, batch = kind.example(), kind.example_batch()
    loss = model.loss(batch)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    compiled = torch.compile(model.loss, backend="aot_eager", fullgraph=True)(batch)
    torch.testing.assert_close(compiled, loss, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(compiled, list(model.parameters())), grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)

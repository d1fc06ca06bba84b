"""Parameter groups: what decays, what trains slowly, and that nothing is left out or counted twice."""

import pytest
import torch
from torch import nn
from toy_run import toy_model

from hippodrome.mixers.base import ParameterGroup
from hippodrome.train.optimizer import adamw, optimizer_groups, set_rate


def test_every_parameter_is_in_one_group():
    model = toy_model()
    placed = [id(p) for group in optimizer_groups(model, 0.1) for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in model.parameters())


def test_only_matrices_decay():
    model = toy_model()
    decays = {id(p) for g in optimizer_groups(model, 0.1) if g["weight_decay"] for p in g["params"]}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if isinstance(module, nn.Linear) and p.dim() == 2:
                assert id(p) in decays
            if isinstance(module, nn.Embedding) or p.dim() < 2:
                assert id(p) not in decays


def test_a_mixers_own_group_keeps_its_rate_and_decay():
    model = toy_model()
    slow = model.backbone.blocks[0].mixer.out_proj.weight
    model.parameter_groups = lambda: [ParameterGroup([slow], lr_factor=0.5, max_lr=1e-3, decay=False)]
    optimizer = adamw(model, 1.0, 0.1, (0.9, 0.95))
    group = next(g for g in optimizer.param_groups if any(p is slow for p in g["params"]))
    assert group["weight_decay"] == 0
    set_rate(optimizer, lr=1e-2, factor=0.5)
    assert group["lr"] == pytest.approx(1e-3 * 0.5)
    set_rate(optimizer, lr=1e-3, factor=0.5)
    assert group["lr"] == pytest.approx(0.5e-3 * 0.5)
    assert {g["lr"] for g in optimizer.param_groups if g is not group} == {1e-3 * 0.5}


def test_frozen_parameters_are_left_out():
    model = toy_model()
    model.embedding.weight.requires_grad_(False)
    placed = {id(p) for group in optimizer_groups(model, 0.1) for p in group["params"]}
    assert id(model.embedding.weight) not in placed


def test_a_step_moves_every_parameter():
    from toy_run import TRAIN, collate

    model = toy_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, 1e-2, 0.1, (0.9, 0.95))
    model.loss(collate([TRAIN[i] for i in range(8)])).backward()
    optimizer.step()
    stuck = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert stuck == []

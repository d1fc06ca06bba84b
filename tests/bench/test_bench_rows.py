"""The rows there are, and all of them run at tiny sizes: on the CPU, and those of a GPU in its place."""

import pytest
import torch

from hippodrome.bench import flat, gpu, language, rivals
from hippodrome.bench.ops import example_tensors
from hippodrome.bench.row import Ask, Pace, Where
from hippodrome.bench.rows import MIXER, OPERATOR, chosen, every, find, of_name
from hippodrome.bench.run import measure

QUICK = Pace(seconds=0, least=1)
CPU = torch.device("cpu")
BUILT = [name for name, row in every().items() if row.build is not None and not name.startswith("flat-")]
NARROW = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("name", BUILT)
def test_rows_of_contenders_run(name: str) -> None:
    row = every()[name]
    for dtype in row.dtypes:
        (found,) = measure(row, Where(CPU, NARROW[dtype]), 1, QUICK, tiny=True, memory=False)
        names = {t.contender for t in found}
        assert any(n.startswith("hippodrome") for n in names)
        assert {t.dtype for t in found} == {dtype}
        assert {t.phase for t in found} >= {"forward", "forward + backward"}
        assert all(t.median > 0 for t in found)


def test_rivals_stand_in_their_rows() -> None:
    wanted = {
        "selective-scan": "accelerated-scan ref.scan",
        "ssd": "transformers, chunk 64",
        "s5": "s5-pytorch",
    }
    for name, rival in wanted.items():
        row = every()[name]
        if rivals.absent(row.rivals):
            pytest.skip("; ".join(rivals.absent(row.rivals)))
        assert row.build is not None
        assert rival in {c.name for c in row.build(Where(), **row.tiny)}


def test_absent_rivals_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "have", lambda package: False)
    names = [c.name for c in every()["selective-scan"].build(Where(), b=1, t=8, d=4, n=2)]
    assert names == ["hippodrome"]
    (sentence,) = rivals.absent(["mambapy"])
    assert sentence == "mambapy is not installed, so it is left out (pip install mambapy)"


@pytest.mark.parametrize("op", sorted(flat.SIZES))
def test_a_row_by_length_has_the_same_tokens_everywhere(op: str) -> None:
    if f"flat-{op.replace('_', '-')}" not in every():
        pytest.skip(f"there is no operator {op}")
    many = flat.contenders(Where(), op, 512)
    assert {c.units for c in many} == {512}
    one = flat.contenders(Where(), op, 512, rows=1)
    assert [c.units for c in one] == [2, 8, 32, 128, 512]
    for c in (many[0], one[0], one[-1]):
        output = c.call()
        assert output.shape[0] * output.shape[1] == c.units
        output.sum().backward()
        assert all(leaf.grad is not None for leaf in c.leaves)


def test_a_long_row_is_the_same_work_as_many_short_ones_where_nothing_is_kept() -> None:
    row = find("flat-linear-scan")
    (found,) = measure(row, Where(), 1, QUICK, tiny=True, memory=False)
    assert [t.contender for t in found[:2]] == ["hippodrome, t=4", "hippodrome, t=16"]
    assert {t.phase for t in found} == {"forward, per token", "forward + backward, per token"}


@pytest.mark.parametrize("name", ["decode-step", "forecasters", "gpu-decode-130m", "gpu-check"])
def test_rows_that_measure_themselves_run(name: str) -> None:
    row = every()[name]
    (found,) = measure(row, Where(), 1, QUICK, tiny=True)
    assert found
    assert all(t.median > 0 for t in found)
    assert any(t.contender.startswith("hippodrome") for t in found)


def test_a_wrong_answer_on_a_gpu_fails_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradients = gpu.errors("linear_scan", Where(), b=1, t=16, d=4)
    assert 0 < max(values, gradients) < 1e-5
    monkeypatch.setattr(gpu, "ALLOWED", 1e-12)
    with pytest.raises(ValueError, match="linear_scan on cpu: values"):
        gpu.check_rows(Ask("gpu-check", 1, QUICK, Where(), tiny=True))


def test_both_loops_of_decoding_are_greedy_decoding() -> None:
    model = language.model_of("hippodrome", "mamba", 32, 16, 1).eval()
    state, ids = model.init_state(1), torch.zeros(1, dtype=torch.long)
    decoder = gpu.Decoder(model, model.init_state(1))
    loops = [gpu.decoder_loop(decoder, CPU), gpu.plain_loop(model, CPU)]
    with torch.no_grad():
        for _ in range(6):
            logits, state = model.step(ids, state)
            ids = logits.argmax(-1)
            assert [int(step()) for step in loops] == [int(ids)] * 2


def test_rows_are_chosen_by_name_prefix_and_level() -> None:
    assert [row.name for row in chosen(["train-130m"])] == ["train-130m-mamba", "train-130m-mamba2"]
    assert [row.name for row in chosen(["ssd"])] == ["ssd"]
    assert {row.level for row in chosen([], "gpu")} == {"gpu"}
    with pytest.raises(ValueError, match="selective-scan"):
        chosen(["selective-scam"])
    with pytest.raises(ValueError, match="there is no level"):
        chosen([], "ops")


def test_operators_and_mixers_by_themselves() -> None:
    assert [row.name for row in of_name("ssd")] == [OPERATOR + "ssd"]
    assert [row.name for row in of_name("s5")] == [MIXER + "s5"]
    assert [row.level for row in of_name("gla")] == ["op", "layer"]
    with pytest.raises(ValueError, match="'ssd'"):
        of_name("ssdd")
    (found,) = measure(find(MIXER + "min_gru"), Where(), 1, QUICK, tiny=True)
    assert [t.phase for t in found] == ["forward", "forward + backward", "one step"]
    (found,) = measure(find(MIXER + "conv_lstm"), Where(), 1, QUICK, tiny=True)
    assert [t.phase for t in found] == ["forward", "forward + backward", "one step"]
    (found,) = measure(find(MIXER + "s4nd"), Where(), 1, QUICK, tiny=True)
    assert [t.phase for t in found] == ["forward", "forward + backward"]
    (found,) = measure(find(OPERATOR + "linear_scan"), Where(), 1, QUICK, tiny=True)
    assert {t.contender for t in found} >= {"hippodrome, torch"}


def test_narrow_examples_leave_rates_wide() -> None:
    u, dt, A, *_ = example_tensors("selective_scan", Where(CPU, torch.bfloat16))
    assert (u.dtype, dt.dtype, A.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    u, log_a, w, *_ = example_tensors("diagonal_lti", Where(CPU, torch.bfloat16))
    assert (u.dtype, log_a.dtype, w.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_the_floors_of_models_count_their_linear_maps(kind: str) -> None:
    """The products that the floor times are those of the model: as many weights, apart from small ones."""
    model = language.model_of("hippodrome", kind, 64, 64, 2)
    maps = sum(i * o for i, o in language.maps_of(kind, 64))
    linear = sum(
        p.numel()
        for name, p in model.named_parameters()
        if name.endswith("weight") and "proj" in name and p.dim() == 2
    )
    assert linear == 2 * maps

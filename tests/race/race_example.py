"""A made-up result of a race, which the tests of the verdict and of the report read."""

import math

from hippodrome.race.result import (
    Confusion,
    CurvePoint,
    Estimate,
    Exhibits,
    ForecastExhibit,
    RaceResult,
    ScalingData,
    Standing,
    Trial,
    rank,
)

NAMES = ("mamba2", "mamba", "s4d", "mamba2x3+attention", "attention", "gru")
LENGTHS = [64, 256, 1024, 4096, 16384]


def standing(i: int, name: str, seeds: int = 3, metric: str = "nats") -> Standing:
    """Contender number i: the higher i the worse, the cheaper and the slower to learn."""
    trials = []
    for seed in range(seeds):
        final = 1.45 + 0.04 * i + 0.01 * math.sin(7 * seed + i)
        if metric == "accuracy":
            final = 0.97 - 0.01 * i + 0.004 * math.sin(7 * seed + i)
        curve = [
            CurvePoint(
                step=step,
                tokens=step * 2048,
                seconds=step * 60 / 400,
                train=1.3 + 0.04 * i + 3 * math.exp(-step / 60) + 0.05 * math.sin(step * 1.7 + i),
                valid=(final + (3 if metric == "nats" else -0.5) * math.exp(-step / 70))
                if step % 40 == 0
                else None,
            )
            for step in range(10, 401, 10)
        ]
        value = {"nats": final, "bits_per_byte": final / math.log(2), "accuracy": 0.55 - 0.01 * i}
        if metric == "accuracy":
            value = {"accuracy": final, "nats": 0.1 + 0.02 * i}
        trials.append(
            Trial(
                seed=seed,
                lr=2e-3,
                folder=f"contenders/{name}/lr-0.002-seed-{seed}",
                steps=400,
                tokens=400 * 2048,
                seconds=60.0,
                valid=value,
                test={k: v * 1.02 for k, v in value.items()},
                curve=curve,
            )
        )
    slope = 1.9 if "attention" in name else 1.0
    forward = [2e-3 * (1 + 0.3 * i) * (t / 64) ** (0.35 * slope) for t in LENGTHS]
    return Standing(
        name=name,
        baseline=name in ("gru", "attention"),
        lr=2e-3,
        width=96 + 8 * i,
        depth=4,
        parameters=402_000 + 1_234 * i,
        trials=trials,
        valid=Estimate.of([t.valid[metric] for t in trials]),
        test=Estimate.of([t.test[metric] for t in trials]),
        tests={key: Estimate.of([t.test[key] for t in trials]) for key in trials[0].test},
        context=256,
        state_bytes=18_432 // (i + 1),
        flops_per_token=8e5,
        bytes_per_token=1_700_000,
        tokens_per_second=13_650 * (1 + 0.2 * i),
        train_bytes=210_000_000 // (i + 1),
        step_seconds=9e-4 / (1 + 0.2 * i),
        scaling=ScalingData(
            lengths=LENGTHS,
            forward_seconds=[*forward[:-1], None if "attention" in name else forward[-1]],
            forward_bytes=[int(t * 4000 * (1 + 0.1 * i)) for t in LENGTHS],
            step_seconds=[
                9e-4 * (1 + 0.05 * i) * (1 + (t / 4096 if "attention" in name else 0)) for t in LENGTHS
            ],
        ),
        faster_than_attention_from=None if name == "attention" else 1024,
    )


def example(kind: str = "language", seeds: int = 3) -> RaceResult:
    """A result with all parts that a kind of task has, one contender diverged."""
    metric = {"language": "nats", "classification": "accuracy", "forecasting": "mse"}[kind]
    names = list(NAMES)
    standings = [
        standing(i, n, seeds, "accuracy" if metric == "accuracy" else "nats") for i, n in enumerate(names)
    ]
    if metric == "mse":
        for s in standings:
            for t in s.trials:
                t.valid = {"mse": t.valid["nats"] / 4, "mae": t.valid["nats"] / 3.5, "coverage": 0.81}
                t.test = dict(t.valid)
                t.curve = [p.model_copy(update={"valid": p.valid and p.valid / 4}) for p in t.curve]
            s.valid = Estimate.of([t.valid["mse"] for t in s.trials])
            s.test = Estimate.of([t.test["mse"] for t in s.trials])
            s.tests = {k: Estimate.of([t.test[k] for t in s.trials]) for k in ("mse", "mae", "coverage")}
    standings.append(
        Standing(
            name="lru",
            status="diverged",
            note="the loss became NaN at step 120 with a learning rate of 0.01",
            lr=0.01,
            width=88,
            depth=4,
            parameters=399_000,
            context=256,
            trials=[
                Trial(seed=0, lr=0.01, folder="contenders/lru/lr-0.01-seed-0", status="diverged", steps=120)
            ],
        )
    )
    better = "higher" if metric == "accuracy" else "lower"
    standings = rank(standings, better)
    exhibits = Exhibits()
    naive = {"unigram": {"nats": 3.31, "bits_per_byte": 4.78, "accuracy": 0.16}}
    if kind == "language":
        exhibits = Exhibits(
            prompt="KING HENRY:\n",
            samples={s.name: "What says the <man> & his lord?\nI shall to the " * 4 for s in standings[:3]},
        )
    elif kind == "classification":
        naive = {"majority": {"accuracy": 0.15}}
        counts = [[30 if a == b else (a * b) % 3 for b in range(9)] for a in range(9)]
        exhibits = Exhibits(confusion=Confusion(classes=[str(i + 1) for i in range(9)], counts=counts))
    else:
        naive = {"seasonal naive": {"mse": 0.512, "mae": 0.433}, "repeat last": {"mse": 1.294}}
        wave = [math.sin(t / 4) for t in range(96)]
        ahead = [math.sin(t / 4) + 0.1 * math.sin(t) for t in range(96, 144)]
        points = {n: [v * (0.9 + 0.02 * i) for v in ahead] for i, n in enumerate(names)}
        points["seasonal naive"] = wave[-48:]
        exhibits = Exhibits(
            forecasts=[
                ForecastExhibit(
                    title=f"{series}, window {w}",
                    past=wave,
                    truth=ahead,
                    points=points,
                    low={n: [v - 0.3 for v in p] for n, p in points.items() if n in names},
                    high={n: [v + 0.3 for v in p] for n, p in points.items() if n in names},
                    coverage="The band is the 80 % interval.",
                )
                for series, w in (("HUFL", 1), ("OT", 1), ("HUFL", 1200), ("OT", 1200))
            ]
        )
    return RaceResult(
        kind=kind,
        task={"language": "tiny & <Shakespeare>", "classification": "JapaneseVowels", "forecasting": "ETTh1"}[
            kind
        ],
        details={
            "source": "text/shakespeare.txt",
            "tokens": {"train": 1_003_854, "valid": 55_770, "test": 55_770},
        },
        metric=metric,
        better=better,
        budget="60 s",
        seeds=list(range(seeds)),
        standings=standings,
        naive=naive,
        winner=standings[0].name,
        exhibits=exhibits,
        settings={"batch size": 32, "parameters": 400_000, "validations": 10},
        machine={
            "processor": "A processor",
            "cores": "2",
            "threads": "2",
            "memory": "8 GiB",
            "accelerator": "",
        },
        versions={"hippodrome": "0.1.0", "torch": "2.13.0"},
        command="hippodrome race text/shakespeare.txt --models mamba2,mamba,s4d,lru --budget 60s",
        began="2026-01-05 12:00",
        wall_seconds=1300.0,
    )

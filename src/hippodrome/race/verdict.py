"""The verdict in plain words: which to take, what it costs, what the next would save, and how sure."""

import math

from hippodrome.race.result import Estimate, RaceResult, Standing, student


def number(value: float | int) -> str:
    """Four significant digits, fewer where they would be noise; thousands apart."""
    if value != value or math.isinf(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.1f}"
    if abs(value) < 1e-3:
        return f"{value:.4g}"
    return f"{value:.{3 - math.floor(math.log10(abs(value)))}f}"


def size(value: float | int) -> str:
    """Bytes in powers of 1024 with three digits."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | int) -> str:
    """Seconds in the unit that fits: 850 µs, 1.2 ms, 3.4 s, 5 min 10 s, 2 h 5 min."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: float | int) -> str:
    """A count with at most three digits and a letter: 402k, 1.25M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def with_interval(estimate: Estimate, metric: str, decimals: int | None = None) -> str:
    """A mean with its interval, in the metric's own form; ``decimals`` where a column agrees on them."""
    if estimate.half is None and decimals is None:
        return quality(estimate.mean, metric)
    decimals = interval_decimals(estimate, metric) if decimals is None else decimals
    factor, sign = (100, " %") if metric in SHARES else (1, "")
    half = "" if estimate.half is None else f" ± {factor * estimate.half:,.{decimals}f}"
    return f"{factor * estimate.mean:,.{decimals}f}{half}{sign}"


def interval_decimals(estimate: Estimate, metric: str) -> int:
    """As many decimals as show two digits of the interval; without one, four digits of the mean."""
    factor = 100 if metric in SHARES else 1
    shown = factor * (estimate.half or abs(estimate.mean) / 100 or 1)
    return max(0, min(6, 1 - math.floor(math.log10(shown))))


def quality(value: float | int, metric: str) -> str:
    """A value of a metric: shares as per cent, anything else as a number."""
    if metric in SHARES:
        return f"{100 * value:.2f} %"
    return number(value)


SHARES = ("accuracy", "coverage")
UNITS = {
    "nats": "nats per token",
    "bits_per_byte": "bits per byte",
    "accuracy": "accuracy",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "coverage": "coverage",
    "pinball": "pinball loss",
}


def unit(metric: str) -> str:
    """A metric's name in words."""
    return UNITS.get(metric, metric.replace("_", " "))


SHORT = {"nats": "nats", "bits_per_byte": "bits/byte", "mse": "MSE", "mae": "MAE"}


def short_unit(metric: str) -> str:
    """A metric's name for the head of a column."""
    return SHORT.get(metric, unit(metric))


def verdict(result: RaceResult) -> list[str]:
    """The sentences at the top of the report."""
    ranked = result.finished
    fallen = [s for s in result.standings if s.status != "finished"]
    if not ranked:
        return ["Nobody finished, so there is nothing to take. " + " ".join(_fallen(fallen))]
    sentences = [_choice(result, ranked), _price(ranked[0])]
    if len(ranked) > 1:
        sentences.append(_runner_up(result, ranked))
    sentences += _pretraining(result)
    sentences += _baselines(result, ranked[0])
    sentences += _fallen(fallen)
    return [s for s in sentences if s]


def _choice(result: RaceResult, ranked: list[Standing]) -> str:
    best = ranked[0]
    test = "not measured" if best.test is None else with_interval(best.test, result.metric)
    valid = "" if best.valid is None else with_interval(best.valid, result.metric)
    field = f"of {len(ranked)} contenders" if len(ranked) > 1 else "as the only one that finished"
    return (
        f"Take {best.name}: {test} {unit(result.metric)} on the test set. It was chosen by validation "
        f"({valid}), {'best ' if len(ranked) > 1 else ''}{field}, after {result.training} each"
        f"{f' with {len(result.seeds)} seeds' if len(result.seeds) > 1 else ''}."
    )


def _price(best: Standing) -> str:
    parts = [f"{count(best.parameters)} parameters"]
    if best.state_bytes is not None:
        parts.append(f"{size(best.state_bytes)} of state for each row after {best.context:,} tokens")
    elif best.context:
        parts.append("no state, since it reads a sequence from both ends and answers when it has all of it")
    if best.step_seconds is not None:
        parts.append(f"{duration(best.step_seconds)} for one more token")
    if best.tokens_per_second is not None:
        parts.append(f"{count(best.tokens_per_second)} tokens a second in training")
    if best.train_bytes is not None:
        parts.append(f"{size(best.train_bytes)} of memory to train")
    return "What it costs here: " + ", ".join(parts) + "."


def _runner_up(result: RaceResult, ranked: list[Standing]) -> str:
    best, second = ranked[0], ranked[1]
    how_sure = certainty(result, best, second)
    text = f"The runner-up is {second.name}: {_gap(result, best, second)}{how_sure}."
    saves = savings(best, second)
    if saves:
        text += f" It would save {saves}."
    else:
        text += " It would save nothing that was measured here by 10 % or more."
    if (
        second.test is not None
        and best.test is not None
        and _better(result, second.test.mean, best.test.mean)
    ):
        text += (
            f" On the test set it is even ahead ({with_interval(second.test, result.metric)} against "
            f"{with_interval(best.test, result.metric)}); the choice stays with validation."
        )
    return text


def _better(result: RaceResult, a: float, b: float) -> bool:
    return a < b if result.better == "lower" else a > b


def _gap(result: RaceResult, best: Standing, second: Standing) -> str:
    if best.valid is None or second.valid is None:
        return ""
    a, b = best.valid.mean, second.valid.mean
    if result.metric == "accuracy":
        return f"{100 * abs(a - b):.2f} percentage points behind on validation, "
    return f"{abs(a - b):.3g} behind on validation ({100 * abs(a - b) / max(abs(a), 1e-12):.1f} %), "


def certainty(result: RaceResult, best: Standing, second: Standing) -> str:
    """Whether the validation scores of two contenders can be told apart, in words.

    With several seeds by Welch's interval for the difference of two means, its degrees of freedom rounded
    down (Welch 1947). With one seed an accuracy is judged by the spread of a share over as many test rows.
    """
    a, b = best.valid, second.valid
    if a is None or b is None:
        return ""
    if len(a.values) > 1 and len(b.values) > 1:
        half = welch_half(a.values, b.values)
        noise = f"{100 * half:.2g} points" if result.metric in SHARES else f"{half:.2g}"
        inside = abs(a.mean - b.mean) <= half
        return (
            f"which is within the noise of the seeds (the difference is known to ± {noise}): "
            "take whichever is cheaper for you"
            if inside
            else f"which is more than the seeds' noise (± {noise})"
        )
    counted = result.details.get("rows")
    rows = counted.get("valid") if isinstance(counted, dict) else None
    if result.metric == "accuracy" and isinstance(rows, int) and rows > 0:
        half = 1.96 * math.sqrt((a.mean * (1 - a.mean) + b.mean * (1 - b.mean)) / rows)
        if abs(a.mean - b.mean) <= half:
            return f"which is within the noise of {rows:,} validation rows (± {100 * half:.1f} points)"
        return f"which is more than the noise of {rows:,} validation rows (± {100 * half:.1f} points)"
    return "with one seed each, so how much of it is luck is not known (several seeds tell)"


def welch_half(a: list[float], b: list[float]) -> float:
    """Half the width of the 95 % interval of the difference of two means."""
    from statistics import variance

    u, v = variance(a) / len(a), variance(b) / len(b)
    if u + v == 0:
        return 0.0
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    return student(max(1, math.floor(freedom))) * math.sqrt(u + v)


def savings(best: Standing, other: Standing) -> str:
    """What ``other`` costs less than ``best``, where that is a tenth or more."""
    pairs = (
        ("the time of a step", best.step_seconds, other.step_seconds),
        ("the state", best.state_bytes, other.state_bytes),
        ("the memory to train", best.train_bytes, other.train_bytes),
        ("the arithmetic per token", best.flops_per_token, other.flops_per_token),
    )
    less = [(name, 1 - y / x) for name, x, y in pairs if x and y is not None and y <= 0.9 * x]
    parts = [f"{100 * share:.0f} % of {name}" for name, share in less]
    mine, theirs = best.tokens_per_second, other.tokens_per_second
    if mine and theirs and theirs >= 1.1 * mine:
        times = theirs / mine
        parts.append(f"time in training (it goes through {times:.1f} times as many tokens a second)")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def _baselines(result: RaceResult, best: Standing) -> list[str]:
    sentences = []
    for name in ("attention", "gru", "bi-attention", "bi-gru"):
        # Of twins, from scratch and pretrained, the better on validation.
        rival = next((s for s in result.finished if name in (s.name, s.scratch)), None)
        if rival is None or name in (best.name, best.scratch) or rival.test is None or best.test is None:
            continue
        a, b = best.test.mean, rival.test.mean
        place = "level" if a == b else "ahead" if _better(result, a, b) else "behind"
        text = (
            f"Against {rival.name} it is {place} on the test set: "
            f"{quality(a, result.metric)} against {quality(b, result.metric)}."
        )
        if name.endswith("attention") and best.faster_than_attention_from is not None:
            start = best.faster_than_attention_from
            text += f" One forward pass is faster than attention's from {start:,} tokens on."
        elif name.endswith("attention") and best.scaling is not None:
            longest = best.scaling.lengths[-1]
            text += f" Up to {longest:,} tokens its forward pass does not overtake attention's."
        sentences.append(text)
    known = {n: m[result.metric] for n, m in result.naive.items() if result.metric in m}
    if known and best.test is not None:
        pick = min if result.better == "lower" else max
        name = pick(known, key=lambda n: known[n])
        a, b = best.test.mean, known[name]
        told = "better" if _better(result, b, a) else "as good" if a == b else ""
        sentences.append(
            f"The best rule that learns nothing, {name}, scores {quality(known[name], result.metric)}"
            + (f", which is {told}: nothing here was worth training for this budget." if told else ".")
        )
    return sentences


def _pretraining(result: RaceResult) -> list[str]:
    """What pretraining changed, and what those saw who learned by filling in."""
    pretext, pairs = result.pretext, result.pairs
    if pretext is None or not pairs:
        return []
    gains = {other.name: _gain(result, one, other) for one, other in pairs}
    best = max(pairs, key=lambda pair: gains[pair[1].name])
    ahead = sum(gain > 0 for gain in gains.values())
    how = (
        "to foretell the next step"
        if pretext.hidden is None
        else f"with {100 * pretext.hidden:.0f} % of the steps hidden"
    )
    same = "as much training in all" if pretext.scratch_budget != result.budget else "the task alone"
    a, b = (quality(s.valid.mean, result.metric) if s.valid else "" for s in best)
    most = {1: "gained most", 0: "stayed level", -1: "lost least"}[_sign(gains[best[1].name])]
    sentences = [
        f"Pretrained on the training inputs alone, {how}, {ahead} of {len(pairs)} models came out ahead of "
        f"the same model from scratch on validation, which had {same}; {best[0].name} {most}: from {a} to "
        f"{b}. {spread(result)}"
    ]
    if pretext.causal:
        others = "; the others read both sides" if len(pretext.causal) < len(pairs) else ""
        sentences.append(
            f"To fill a step in, {', '.join(pretext.causal)} could read only what comes before it{others}."
        )
    if pretext.left_out:
        sentences.append(
            f"{', '.join(pretext.left_out)} ran from scratch only: who reads later steps has nothing to "
            f"foretell."
        )
    return sentences


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _gain(result: RaceResult, one: Standing, other: Standing) -> float:
    """How much better the second is on validation."""
    if one.valid is None or other.valid is None:
        return 0.0
    sign = -1 if result.better == "lower" else 1
    return sign * (other.valid.mean - one.valid.mean)


def spread(result: RaceResult) -> str:
    """How far the models lie apart on test, from scratch and pretrained."""
    both = [(a.test.mean, b.test.mean) for a, b in result.pairs if a.test is not None and b.test is not None]
    if len(both) < 2:
        return ""
    scratch, after = (max(column) - min(column) for column in zip(*both, strict=True))
    if result.metric in SHARES:
        said = f"{100 * scratch:.1f} percentage points from scratch and {100 * after:.1f} pretrained"
    else:
        said = f"{number(scratch)} from scratch and {number(after)} pretrained"
    return f"The best and the worst of them are apart on test by {said}."


def _fallen(fallen: list[Standing]) -> list[str]:
    return [f"{s.name} {s.status}: {s.note}" + ("" if s.note.endswith(".") else ".") for s in fallen]

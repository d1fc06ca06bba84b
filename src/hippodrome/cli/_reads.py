"""What the layers of a trained model read, remember and do to tokens, on a sequence of its own test data."""

from typing import TYPE_CHECKING, Any, NamedTuple

from hippodrome.cli._spent import Sequences

if TYPE_CHECKING:
    from hippodrome.analyze.charts import Chart

MOST = 256
"""Tokens of the sequence that maps are drawn of: they hold the square of that, for each channel."""


class Look(NamedTuple):
    """What was found for each layer, and the pictures."""

    facts: dict[str, Any]
    charts: "list[Chart]"


def look(given: Sequences) -> Look:
    """Hidden attention, memory and token dynamics of the layers that have them, in the order of the model."""
    import torch

    from hippodrome.analyze import channel_memory as memory
    from hippodrome.analyze import hidden_attention as hidden
    from hippodrome.analyze.token_dynamics import verdict
    from hippodrome.mixers.mamba import Mamba

    batch = given.batch([given.number])
    lengths = getattr(batch, "lengths", None)
    with torch.random.fork_rng(devices=[]):
        seen = hidden.inputs_of_mixers(given.run.model, lambda: given.run.model.loss(batch))
    if not seen:
        return Look({}, [])
    length = seen[0].x.shape[1] if lengths is None else int(lengths[0])
    shown = min(length, MOST)
    facts: dict[str, Any] = {}
    maps, memories = [], []
    for one in seen:
        told = facts.setdefault(one.layer, {})
        maps.append(hidden.hidden_attention(one, 0, shown))
        told["reach"] = maps[-1].reach()
        try:
            # A reversed row begins with its padding.
            tokens = slice(-length, None) if one.backwards else slice(length)
            told_apart = None if one.modality is None else one.modality[:, tokens]
            memories.append(
                memory.channel_memory(one.mixer, one.x[:, tokens], one.layer, modality=told_apart)
            )
        except ValueError:
            continue
        kept = memories[-1].tokens
        told["memory"] = {
            "window": length,
            "median": float(kept[len(kept) // 2]),
            "longest": float(kept[-1]),
            "global": memories[-1].global_share,
        }
        if isinstance(one.mixer, Mamba) and (maps_of := one.mixer.token_maps()) is not None:
            fate = verdict(*maps_of)
            told["dynamics"] = {
                "fate": fate.fate,
                "least": min(fate.eigenvalues),
                "most": max(fate.eigenvalues),
                "conjecture": not fate.proven,
            }
    integers = not batch[0].is_floating_point()
    names = [given.name(int(i)) for i in batch[0][0, :shown]] if integers and given.run.tokenizer else []
    charts = [hidden.attention_maps(maps, names)]
    if memories:
        charts.append(memory.memory_chart(memories))
    return Look(facts, charts)


def shown(facts: dict[str, Any]) -> dict[str, str]:
    """The same as lines of a table."""
    lines = {}
    for layer, told in facts.items():
        parts = [f"reads {told['reach']:.1f} tokens away"]
        if "memory" in told:
            m = told["memory"]
            parts.append(
                f"state falls to 1/e in {m['median']:.3g} tokens (median; longest {m['longest']:.3g}), "
                f"{100 * m['global']:.0f} % of it global over {m['window']}"
            )
        if "dynamics" in told:
            d = told["dynamics"]
            word = "conjectured" if d["conjecture"] else "proven"
            parts.append(
                f"tokens {d['fate']} in depth ({word}; eigenvalues {d['least']:.3g} to {d['most']:.3g})"
            )
        lines[layer] = "; ".join(parts)
    return lines

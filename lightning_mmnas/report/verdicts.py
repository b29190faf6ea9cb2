"""What a comparison says in words: above, level or below, by a paired test over the draws."""

import statistics
from collections.abc import Sequence
from typing import Any

FOUND, RANDOM = "found+ssl", "random+ssl"
_KINDS = (RANDOM, "late_fusion", "modality:", "raw_features")  # how the names of a kind of rivals begin
_LEVEL = 0.05
"""A difference with a larger p is none."""


def paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean difference of two lists of scores on the same draws, and the p of Student's paired test (two-sided).

    With fewer than two draws nothing can be told: p is 1. Where all differences are the same, and not 0, p is 0.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, 1.0
    if max(differences) - min(differences) < 1e-12:
        return mean, 0.0 if abs(mean) > 1e-12 else 1.0
    from scipy.stats import ttest_1samp

    return mean, float(ttest_1samp(differences, 0.0).pvalue)


def verdicts(comparison: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence per label budget: the pretrained found network against the best rival of every kind.

    Kinds are the random architectures (their median), late fusion in any form, single modalities, and logistic
    regression; the best is that of highest mean. A difference is one only if a paired test over the draws supports it.

    Args:
        comparison: Rows of `results.json`.
    """
    sentences = []
    for budget in dict.fromkeys(entry["labels_per_class"] for entry in comparison):
        rows = {e["name"]: e for e in comparison if e["labels_per_class"] == budget}
        found = rows.get(FOUND)
        if found is None:
            continue
        found_parts: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
        for kind in _KINDS:
            rivals = [entry for name, entry in rows.items() if name.startswith(kind)]
            if not rivals:
                continue
            best = max(rivals, key=lambda entry: float(entry["mean"]))
            difference, p = paired(_scores(found), _scores(best))
            word = "level with" if p >= _LEVEL else "above" if difference > 0 else "below"
            found_parts[word].append(f"{best['name']} ({best['mean']:.3f}, {difference:+.3f}, p {_p(p)})")
        parts = [f"{word} {' and '.join(names)}" for word, names in found_parts.items() if names]
        if parts:
            labels = "With all labels" if budget == "all" else f"At {budget} labels per class"
            sentences.append(
                f"{labels}, {found['n']} draws: the found network ({found['mean']:.3f}) is {', '.join(parts)}."
            )
    return sentences


def _scores(entry: dict[str, Any]) -> list[float]:
    """The scores of a row; rows of earlier versions have their mean alone."""
    return list(entry.get("scores") or [entry["mean"]])


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.1f}"

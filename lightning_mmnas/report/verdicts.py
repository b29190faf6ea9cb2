"""What a comparison says in words: above, level or below, by a paired test over the draws."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from lightning_mmnas.report.budgets import budget_name, budget_of, counted, measured, unit_of

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

    Kinds are the random architectures (their median), late fusion in any form, single modalities, and logistic (or
    ridge) regression; the best is that of highest mean. A difference is one only if a paired test over the draws
    supports it; of one draw only the numbers are told.

    Args:
        comparison: Rows of `results.json`.
    """
    sentences = []
    comparison = measured(comparison)
    for budget in dict.fromkeys(budget_of(entry) for entry in comparison):
        rows = {e["name"]: e for e in comparison if budget_of(e) == budget}
        found = rows.get(FOUND)
        if found is None:
            continue
        found_parts: dict[str, list[str]] = {"above": [], "level with": [], "below": [], "beside": []}
        alone = found["n"] < 2
        for kind in _KINDS:
            rivals = [entry for name, entry in rows.items() if name.startswith(kind)]
            if not rivals:
                continue
            best = max(rivals, key=lambda entry: float(entry["mean"]))
            difference, p = paired(_scores(found), _scores(best))
            word, sure = ("beside", "") if alone else (_word(difference, p), f", p {_p(p)}")
            found_parts[word].append(f"{best['name']} ({best['mean']:.3f}, {difference:+.3f}{sure})")
        parts = [f"{word} {' and '.join(names)}" for word, names in found_parts.items() if names]
        if parts:
            draws = "one draw, so chance cannot be judged" if alone else counted(found["n"], "draw")
            sentences.append(
                f"{_with(budget, found)}, {draws}: the found network ({found['mean']:.3f}) is {', '.join(parts)}."
            )
    return sentences


def headline(comparison: Sequence[dict[str, Any]]) -> str | None:
    """The found network against random architectures at the largest label budget, with a 95 % interval.

    Args:
        comparison: Rows of `results.json`.

    Returns:
        A sentence; None where one of the two is not among the rows.
    """
    budgets = [budget_of(entry) for entry in comparison]
    budget = "all" if "all" in budgets else max(budgets, default=0)
    rows = {entry["name"]: entry for entry in comparison if budget_of(entry) == budget}
    if FOUND not in rows or RANDOM not in rows:
        return None
    found, random = rows[FOUND], rows[RANDOM]
    labels = _with(budget, found)
    if len(measured([found, random])) < 2:
        return (
            f"{labels} the found network and random architectures cannot be compared: {found['metric']} is not defined "
            "for one of them, as that of a single sample is not."
        )
    difference, p = paired(_scores(found), _scores(random))
    words = {"above": "better than", "below": "worse than"}.get(_word(difference, p), "not told apart from")
    half = half_width([a - b for a, b in zip(_scores(found), _scores(random), strict=True)])
    sure = "one draw, so chance cannot be judged"
    if half is not None:
        sure = (
            f"95 % interval {_signed(difference - half)} to {_signed(difference + half)}, {len(_scores(found))} draws"
        )
    return (
        f"{labels} the found network ({found['metric']} {found['mean']:.3f}) is {words} random architectures "
        f"({random['mean']:.3f}): difference {_signed(difference)}, {sure}."
    )


def half_width(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of Student's confidence interval of a mean; None for fewer than two, or of NaN.

    Examples:
        >>> round(half_width([1.0, 2.0, 3.0]) or 0, 3)
        2.484
    """
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, n - 1))
    return quantile * statistics.stdev(values) / math.sqrt(n)


def _with(budget: object, row: dict[str, Any]) -> str:
    """How a sentence about a budget begins."""
    return f"{'With' if budget == 'all' else 'At'} {budget_name(budget, unit_of(row))}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no negative zero


def _word(difference: float, p: float) -> str:
    return "level with" if p >= _LEVEL else "above" if difference > 0 else "below"


def _scores(entry: dict[str, Any]) -> list[float]:
    """The scores of a row; rows of earlier versions have their mean alone."""
    return list(entry.get("scores") or [entry["mean"]])


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.1f}"

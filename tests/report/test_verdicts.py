"""What a comparison says in words: no difference without a test behind it, and no rival left out."""

import math
import statistics
from typing import Any

import pytest
from scipy.stats import ttest_rel

from lightning_mmnas.report.verdicts import half_width, headline, paired, verdicts


def row(name: str, *scores: float, budget: Any = 5) -> dict[str, Any]:
    spread = 0.0 if len(scores) < 2 or math.isnan(scores[0]) else statistics.stdev(scores)
    return {
        "name": name,
        "labels_per_class": budget,
        "metric": "accuracy",
        "mean": statistics.fmean(scores),
        "std": spread,
        "n": len(scores),
        "scores": list(scores),
    }


def test_paired_is_students_test_of_the_differences() -> None:
    first, second = [0.61, 0.64, 0.70, 0.66], [0.60, 0.66, 0.65, 0.60]
    difference, p = paired(first, second)
    assert difference == pytest.approx(statistics.fmean(first) - statistics.fmean(second))
    assert p == pytest.approx(float(ttest_rel(first, second).pvalue))
    assert paired([0.5], [0.4])[1] == 1.0  # one draw tells nothing
    assert paired([0.5, 0.6], [0.4, 0.5])[1] == 0.0
    assert paired([0.5, 0.6], [0.5, 0.6]) == (0.0, 1.0)


def test_above_level_and_below() -> None:
    (sentence,) = verdicts(
        [
            row("found+ssl", 0.80, 0.82, 0.81),
            row("random+ssl", 0.70, 0.71, 0.72),
            row("late_fusion", 0.10, 0.10, 0.10),
            row("late_fusion_linear", 0.79, 0.84, 0.80),
            row("modality:image", 0.90, 0.93, 0.91),
            row("raw_features", 0.5, 0.5, 0.5),
        ]
    )
    assert sentence.startswith(
        "At 5 labels per class, 3 draws: the found network (0.810) is above random+ssl (0.710, +0.1"
    )
    assert "and raw_features (0.500, +0.310" in sentence
    assert "level with late_fusion_linear (0.810, +0.000, p 1.0)" in sentence
    assert "below modality:image (0.913, -0.103, p " in sentence
    assert "late_fusion (" not in sentence  # the best of its kind speaks for it


def test_one_draw_is_one() -> None:
    (sentence,) = verdicts([row("found+ssl", 0.9), row("raw_features", 0.6)])
    assert sentence == (
        "At 5 labels per class, one draw, so chance cannot be judged: the found network (0.900) is beside raw_features "
        "(0.600, +0.300)."
    )


def test_a_tie_within_the_spread_is_no_win() -> None:
    (sentence,) = verdicts(
        [row("found+ssl", 0.551, 0.601, 0.651, budget="all"), row("raw_features", 0.60, 0.60, 0.60, budget="all")]
    )
    assert sentence == (
        "With all labels, 3 draws: the found network (0.601) is level with raw_features (0.600, +0.001, p 1.0)."
    )


def test_nothing_to_say() -> None:
    assert verdicts([]) == []
    assert verdicts([row("found", 0.5)]) == []
    assert verdicts([row("found+ssl", 0.5)]) == []
    old = [{k: v for k, v in row(name, 0.5, 0.7).items() if k != "scores"} for name in ("found+ssl", "random+ssl")]
    assert "level with random+ssl" in verdicts(old)[0]  # a file of an earlier version


def test_scores_that_are_none_are_no_result() -> None:
    nothing, known = [math.nan] * 3, [0.5, 0.6, 0.7]
    assert half_width(nothing) is None
    rows = [row("found+ssl", *known), row("random+ssl", *nothing), row("raw_features", *known)]
    (sentence,) = verdicts(rows)
    assert "random" not in sentence
    assert "level with raw_features" in sentence
    assert "cannot be compared: accuracy is not defined for one of them" in str(headline(rows))
    assert verdicts([row("found+ssl", *nothing), row("random+ssl", *known)]) == []


def test_the_headline_is_about_the_most_labels_and_says_how_sure_it_is() -> None:
    rows = [
        row("found+ssl", 0.1, 0.2, 0.3, budget=5),
        row("random+ssl", 0.5, 0.6, 0.7, budget=5),
        row("found+ssl", 0.7, 0.8, 0.9, budget=20),
        row("random+ssl", 0.6, 0.71, 0.79, budget=20),
    ]
    # Differences 0.1, 0.09, 0.11: mean 0.1, standard error 0.01 / sqrt(3), t quantile 4.3027.
    assert headline(rows) == (
        "At 20 labels per class the found network (accuracy 0.800) is better than random architectures (0.700): "
        "difference +0.100, 95 % interval +0.075 to +0.125, 3 draws."
    )
    assert "is worse than random" in str(headline(rows[:2]))
    alone = [{**entry, "scores": entry["scores"][:1]} for entry in rows]
    assert "not told apart from" in str(headline(alone))
    assert "one draw, so chance cannot be judged" in str(headline(alone))
    assert headline(rows[::2]) is None
    assert headline([]) is None

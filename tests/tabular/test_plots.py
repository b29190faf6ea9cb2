"""Pictures of a table show its numbers."""

import numpy as np
import pytest

from lightning_mmnas.tabular.plots import plot_cost, plot_criterion, plot_distribution
from tests.tabular.test_table import table


def test_distribution_marks_median_baselines_and_own_values() -> None:
    axes = plot_distribution(table(), "supervised", {"found": 0.75}).axes[0]
    assert sum(patch.get_height() for patch in axes.patches) == 4  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == ["late_fusion", "median", "found"]  # from left to right
    assert [float(line.get_xdata()[0]) for line in axes.lines] == pytest.approx([0.5, 0.6, 0.75])  # type: ignore[index, arg-type]


def test_criterion() -> None:
    axes = plot_criterion(table(), "nt_xent", "supervised").axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 0], 3 - points[:, 1])
    assert axes.get_title().startswith("Spearman 1.00")


def test_cost_draws_the_front() -> None:
    axes = plot_cost(table(), "supervised").axes[0]
    assert list(axes.lines[0].get_xdata()) == [0, 1]  # type: ignore[arg-type]  # 0.6 for 0, then 0.8 for 1
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.6, 0.8])  # type: ignore[arg-type]

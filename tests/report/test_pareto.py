"""The Pareto front and its picture."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from lightning_mmnas.report.pareto import pareto_front, plot_pareto

POINTS = [(31.0, 3.1), (12.0, 3.6), (25.0, 3.05), (40.0, 3.0), (18.0, 3.7), (25.0, 3.4)]


def test_front_of_a_few_points() -> None:
    assert pareto_front(POINTS) == [1, 2, 3]
    assert pareto_front([]) == []
    assert pareto_front([(1, 2), (1, 2), (1, 3)]) == [0, 1]
    assert pareto_front([(float("nan"), 0.0), (2.0, 2.0), (0.0, float("inf"))]) == [2, 1]


def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[st.integers(0, 5)] * d), max_size=12)))
def test_front_by_its_definition(points: list[tuple[int, ...]]) -> None:
    front = pareto_front(points)
    wanted = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(front) == wanted
    assert [points[i] for i in front] == sorted(points[i] for i in front)


def test_picture_shows_every_point_the_choice_and_the_budget() -> None:
    points = [*POINTS, (20.0, float("nan"))]
    figure = plot_pareto(points, "parameters", "NT-Xent", chosen=2, limit=30.0)
    axes = figure.axes[0]
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.get_lines()}  # type: ignore[union-attr]
    assert lines["Pareto front"] == [[12.0, 3.6], [25.0, 3.05], [40.0, 3.0]]
    assert lines["beaten"] == [[31.0, 3.1], [18.0, 3.7], [25.0, 3.4]]
    assert lines["chosen"] == [[25.0, 3.05]]
    assert [x for x, _ in lines["budget"]] == [30.0, 30.0]
    words = [text.get_text() for text in axes.findobj(Text) if isinstance(text, Text)]
    assert {"1", "2", "3", "4", "5", "6", "parameters", "NT-Xent (lower is better)"} <= set(words)
    assert "7" not in words


@pytest.mark.parametrize("count", [0, 1])
def test_picture_of_few_points(count: int) -> None:
    figure = plot_pareto(POINTS[:count], "parameters", "NT-Xent")
    assert {line.get_label() for line in figure.axes[0].get_lines()} == {"beaten", "Pareto front"}

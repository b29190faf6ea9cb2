"""What predictions and vectors amount to, against sums by hand."""

import pytest
import torch

from lightning_mmnas.report import measures


def test_confident_errors_come_in_order() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    found = measures.confident_errors(probabilities, torch.tensor([1, 0, 1, 1]), 2)
    assert [entry["index"] for entry in found] == [1, 3]
    assert found[0] == {
        "index": 1,
        "true": 0,
        "predicted": 1,
        "probability": pytest.approx(0.9),
        "probability_of_true": pytest.approx(0.1),
    }
    assert measures.confident_errors(probabilities, torch.tensor([0, 1, 1, 0]), 2) == []


def test_scores_of_labels_by_hand() -> None:
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]])
    decisions = torch.tensor([[1, 0], [1, 0], [0, 0], [1, 0]])
    first, second = measures.label_scores(decisions, labels, ["a", "b"])
    assert first == {
        "label": "a",
        "samples": 3,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }
    assert (second["samples"], second["precision"], second["recall"], second["f1"]) == (1, 0, 0, 0)


def test_worst_labels_name_the_label_that_is_most_wrong() -> None:
    probabilities = torch.tensor([[0.9, 0.2], [0.5, 0.01]])
    (worst,) = measures.worst_labels(probabilities, torch.tensor([[1, 0], [1, 1]]), 1)
    expected = -(torch.tensor(0.5).log() + torch.tensor(0.01).log()) / 2
    assert worst == {
        "index": 1,
        "label": 1,
        "has_it": True,
        "probability": pytest.approx(0.01),
        "loss": pytest.approx(float(expected), rel=1e-5),
    }


def test_two_dimensions_keep_distances_of_a_plane() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(20, 2, generator=generator) @ torch.randn(2, 7, generator=generator)
    points, share = measures.two_dimensions(plane)
    assert share == pytest.approx(1.0)
    torch.testing.assert_close(torch.cdist(torch.tensor(points), torch.tensor(points)), torch.cdist(plane, plane),
                               atol=1e-3, rtol=1e-3)  # fmt: skip
    line, share = measures.two_dimensions(torch.tensor([[0.0], [2.0]]))
    assert sorted(line) == [[-1.0, 0.0], [1.0, 0.0]]


def test_neighbours() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]])
    assert measures.neighbour_accuracy(vectors, torch.tensor([0, 0, 1, 1])) == 1.0
    assert measures.neighbour_accuracy(vectors, torch.tensor([0, 1, 0, 1])) == 0.0
    assert measures.neighbour_accuracy(vectors, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])) == 0.5
    assert measures.neighbour_accuracy(vectors, torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 3, 3])) == 1.0
    several = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]])
    assert measures.neighbour_accuracy(vectors, several) == 0.5

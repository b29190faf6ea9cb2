"""Tensors that no encoder takes are told in a line."""

import warnings

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.spec import ModalitySpec, check_batch
from lightning_mmnas.errors import DataError


def nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize("kind", ["sparse", "nested"])
def test_a_batch_of_tensors_that_are_not_ordinary(kind: str) -> None:
    tensors = {"sparse": torch.zeros(4, 3).to_sparse(), "nested": nested()}
    with pytest.raises(DataError, match=rf"modality 'a' of the batch is a {kind} tensor"):
        check_batch({"a": tensors[kind]}, {"a": ModalitySpec("features", (3,))})
    for device in ("cpu", "meta"):  # on which shapes are counted
        check_batch({"a": torch.zeros(4, 3, device=device)}, {"a": ModalitySpec("features", (3,))})


@pytest.mark.parametrize("shape", [(3,), (3, 16), (3, 8, 8)])
def test_a_sample_in_the_place_of_a_batch(shape: tuple[int, ...]) -> None:
    """As where `Trainer.fit` is given the data set itself."""
    spec = {"a": ModalitySpec("image" if len(shape) == 3 else "motion", shape)}
    with pytest.raises(
        DataError, match=r"modality 'a' of the batch has the shape of one sample, .* give the trainer a D"
    ):
        check_batch({"a": torch.zeros(shape)}, spec)
    check_batch({"a": torch.zeros(3, *shape)}, spec)

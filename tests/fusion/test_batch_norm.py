"""Batch norm over positions, and its synchronisation; two ranks are in tests/callbacks/test_alternation_ddp.py."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_mmnas.callbacks.batch_norm_sync import BatchNormSync
from lightning_mmnas.fusion.batch_norm import over_positions, statistics_kept
from lightning_mmnas.fusion.primitives import ConcatFC


def test_what_torch_converts_still_normalises_channels() -> None:
    x, y = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))  # as many positions as channels
    primitive = ConcatFC(4, 4)
    wanted = primitive(x, y)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(primitive)  # type: ignore[no-untyped-call]
    assert isinstance(converted.norm, nn.SyncBatchNorm)
    torch.testing.assert_close(converted(x, y), wanted)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_equals_plain_in_one_process(affine: bool, momentum: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum, affine=affine)).double()
    ours = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum, affine=affine)).double()
    sync = BatchNormSync()
    sync.apply(ours)
    for mode in (True, True, False):
        x = torch.randn(5, 3, 2, 4, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(ours.train(mode)(x), plain.train(mode)(x))
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with statistics_kept(ours.train()):
        ours(x)
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)
    sync.revert(ours)
    assert type(ours[0]) is nn.BatchNorm2d


def test_statistics_are_kept_in_training_only_for_as_long_as_asked() -> None:
    norm, x = nn.BatchNorm1d(3), torch.randn(4, 2, 3)
    with statistics_kept(norm):
        out = over_positions(norm, x)
    assert norm.num_batches_tracked == 0
    torch.testing.assert_close(out, over_positions(norm, x))
    assert norm.num_batches_tracked == 1


def test_a_batch_norm_of_another_kind_is_left_frozen_or_refused() -> None:
    class Own(nn.BatchNorm1d):
        pass

    module = nn.Sequential(Own(3).eval())
    BatchNormSync().apply(module)
    assert type(module[0]) is Own
    with pytest.raises(MisconfigurationException, match="cannot synchronise 0, a Own"):
        BatchNormSync().apply(module.train())

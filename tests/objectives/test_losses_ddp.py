"""Two gloo processes: the mean over ranks, values and gradients, equals one process on the joined batch."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_mmnas.objectives.losses import CrossModalInfoNCE, local_objective, nt_xent
from tests.ranks import start_ranks

WORLD, B, D = 2, 4, 6  # B: samples per rank

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_modal(z0: Tensor, z1: Tensor) -> Tensor:
    loss: Tensor = CrossModalInfoNCE()({"first": z0, "second": z1, "third": z0 + 2 * z1})
    return loss


LOSSES: dict[str, Loss] = {"nt_xent": nt_xent(0.2), "cross_modal": cross_modal}


def samples() -> Tensor:
    return torch.randn(2, WORLD * B, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 3)).double()


def run(net: nn.Module, views: Tensor, loss: Loss) -> list[Tensor]:
    """Value of the loss, then the gradients of the weights."""
    net.zero_grad()
    z0, z1 = net(views.flatten(0, 1)).chunk(2)
    value = loss(z0, z1)
    value.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    return [value.detach(), *gradients]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timeout=timedelta(seconds=60), rank=rank, world_size=WORLD
    )
    part = samples()[:, rank * B : (rank + 1) * B]
    found = {name: run(DistributedDataParallel(network()), part, loss) for name, loss in LOSSES.items()}
    found["local"] = run(network(), part, local_objective(nt_xent(0.2)))
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    folder = tmp_path_factory.mktemp("gloo")
    start_ranks(work, (str(folder),), WORLD)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_equal_one_on_the_joined_batch(name: str, ranks: list[dict[str, list[Tensor]]]) -> None:
    value, *gradients = run(network(), samples(), LOSSES[name])
    values = [rank[name][0] for rank in ranks]
    torch.testing.assert_close(sum(values) / WORLD, value, rtol=1e-12, atol=1e-12)
    assert len(gradients) == 4
    for rank in ranks:  # DistributedDataParallel has averaged the gradients
        for mine, wanted in zip(rank[name][1:], gradients, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_local_objective_knows_its_own_rank_only(ranks: list[dict[str, list[Tensor]]]) -> None:
    for number, rank in enumerate(ranks):
        own = run(network(), samples()[:, number * B : (number + 1) * B], nt_xent(0.2))
        torch.testing.assert_close(rank["local"], own, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(rank["local"][0], rank["nt_xent"][0])

"""What a network is worth: against `GenotypeSelection`, a plain training loop and networks that inherit."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas import FusionSearch, Genotype, MotionEncoder
from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.errors import CheckpointError, RunDirectoryError
from lightning_mmnas.fusion.batch_norm import batch_statistics
from lightning_mmnas.modules.candidates import candidate
from lightning_mmnas.objectives.criteria import DroppedViewsNTXent
from lightning_mmnas.objectives.training import build_optimizer
from lightning_mmnas.sampling.evaluators import Inherited, TrainedAlone, own_random_numbers
from tests.sampling.toys import TinyData

# Frozen encoders are meant to be in eval mode.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode")


def encoder(spec: ModalitySpec) -> MotionEncoder:
    return MotionEncoder(spec, channels=(4, 4))


def search_of(**changes: Any) -> FusionSearch:
    torch.manual_seed(0)
    settings = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4, **changes}
    return FusionSearch(TinyData().modalities, {"motion": encoder}, **settings)


def loaders() -> Any:
    data = TinyData()
    data.setup("fit")
    return data.train_dataloader().iterables  # type: ignore[union-attr]


def never(step: int, value: float) -> None:
    raise AssertionError("reported")


def genotypes(module: FusionSearch, count: int) -> list[Genotype]:
    generator = torch.Generator().manual_seed(0)
    return [module.space.sample(generator) for _ in range(count)]


def test_networks_are_trained_as_in_a_plain_loop() -> None:
    module = search_of(dropout=0.3)
    genotype = genotypes(module, 1)[0]
    table = CostTable.measure(module.space, module.encoders.feature_shapes, "parameters", "pool")
    evaluator = TrainedAlone(module, loaders, DroppedViewsNTXent(), 5, 0.01, 7, [table])
    measured = evaluator(genotype, never)

    views = list(evaluator.training_views())
    assert len(views) == 5
    torch.manual_seed(7)
    network = candidate(module, genotype)
    optimizer, schedule = build_optimizer(
        [{"params": list(network.parameters()), "lr": 0.01}], module.weight_decay, "one_cycle", 5
    )
    for index, (first, second) in enumerate(views):
        optimizer.zero_grad()
        torch.manual_seed(1_000_003 * 7 + index)  # dropout of every step has random numbers of its own
        network(first, second).backward()
        optimizer.step()
        schedule.step()
    assert measured["criterion"] == evaluator.score(network.eval())
    assert measured["parameters"] == sum(p.numel() for p in network.fusion.parameters())


def test_order_and_company_change_nothing() -> None:
    found = genotypes(search_of(), 3)
    alone = {g: TrainedAlone(search_of(), loaders, DroppedViewsNTXent(), 3)(g, never) for g in found}
    evaluator = TrainedAlone(search_of(), loaders, DroppedViewsNTXent(), 3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    for genotype in reversed(found):
        assert evaluator(genotype, never) == alone[genotype]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({measured["criterion"] for measured in alone.values()}) == 3
    other = TrainedAlone(search_of(), loaders, DroppedViewsNTXent(), 3, seed=1)
    assert other(found[0], never) != alone[found[0]]


def test_scores_on_the_way_are_reported_and_change_nothing() -> None:
    module, reported = search_of(dropout=0.3), []
    genotype = genotypes(module, 1)[0]
    evaluator = TrainedAlone(module, loaders, DroppedViewsNTXent(), 10, reports=True)
    measured = evaluator(genotype, lambda step, value: reported.append((step, value)))
    assert [step for step, _ in reported] == [2, 4, 6, 8]
    assert len({value for _, value in reported}) == 4
    assert measured == TrainedAlone(module, loaders, DroppedViewsNTXent(), 10)(genotype, never)

    class StoppedError(Exception):
        pass

    def stop(step: int, value: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        evaluator(genotype, stop)
    assert evaluator(genotype, lambda *_: None) == measured


def test_inherited_scores_are_those_of_networks_that_inherit() -> None:
    module = search_of()
    before = {name: value.clone() for name, value in module.supernet.state_dict().items()}
    evaluator = Inherited(module, loaders, DroppedViewsNTXent(), steps=6)
    drawn: list[Genotype | None] = []
    hook = evaluator.path.register_forward_pre_hook(lambda *_: drawn.append(evaluator.path.genotype))
    evaluator.prepare()
    hook.remove()
    assert drawn == genotypes(module, 6)  # uniform, by the same seed
    assert len(set(drawn)) > 1
    assert any(not torch.equal(value, before[name]) for name, value in module.supernet.state_dict().items())
    trained = {name: value.clone() for name, value in module.supernet.state_dict().items()}
    for genotype in genotypes(module, 4):
        measured = evaluator(genotype, never)
        network = candidate(module, genotype)
        module.supernet.inherit(network.fusion)  # type: ignore[arg-type]
        network.projector.load_state_dict(module.fusion.projector.state_dict())
        with batch_statistics(network):
            assert measured["criterion"] == pytest.approx(evaluator.score(network), abs=1e-5)
    # Scoring changes nothing, running statistics included.
    assert all(torch.equal(value, trained[name]) for name, value in module.supernet.state_dict().items())
    # The logits had no part in it.
    assert not any(p.grad is not None for p in module.supernet.architecture_parameters())
    assert all(torch.equal(p, torch.zeros_like(p)) for p in module.supernet.architecture_parameters())


class Noise(nn.Module):
    """A view is the sample and noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.randn_like(x)


@pytest.mark.slow
def test_training_a_supernet_lowers_its_score() -> None:
    scores = {}
    for steps in (1, 80):
        module = search_of(channels=8, projection_out=8, augmentations={"motion": Noise()})
        evaluator = Inherited(module, loaders, DroppedViewsNTXent(), steps=steps, lr=0.01)
        found = genotypes(module, 6)
        scores[steps] = sum(evaluator(genotype, never)["criterion"] for genotype in found) / len(found)
    assert scores[80] < scores[1] - 0.1


def test_supernet_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "supernet.ckpt"
    first = Inherited(search_of(), loaders, DroppedViewsNTXent(), 3, checkpoint=path, facts={"lr": 1})
    genotype = genotypes(first.module, 1)[0]
    measured = first(genotype, never)
    again = Inherited(search_of(lr=5.0), loaders, DroppedViewsNTXent(), 3, checkpoint=path, facts={"lr": 1})
    again.train = never  # type: ignore[assignment]
    assert again(genotype, never) == measured
    other = Inherited(search_of(), loaders, DroppedViewsNTXent(), 3, checkpoint=path, facts={"lr": 2})
    with pytest.raises(CheckpointError, match=r"supernet\.ckpt was trained with other settings; delete it"):
        other.prepare()
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is not a Lightning checkpoint"):
        Inherited(search_of(), loaders, DroppedViewsNTXent(), 3, checkpoint=path, facts={"lr": 1}).prepare()


def test_a_supernet_that_cannot_be_written(tmp_path: Path) -> None:
    evaluator = Inherited(search_of(), loaders, DroppedViewsNTXent(), 1, checkpoint=tmp_path / "supernet.ckpt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))  # torch would end the process
    try:
        with pytest.raises(RunDirectoryError, match=r"cannot write .*supernet\.ckpt: File too large"):
            evaluator.prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_random_numbers_of_an_iterator_are_its_own() -> None:
    def items() -> Any:
        for _ in range(3):
            yield torch.rand(2)

    expected = list(own_random_numbers(items(), 4, torch.device("cpu")))
    torch.manual_seed(1)
    drawn, found = [], []
    for item in own_random_numbers(items(), 4, torch.device("cpu")):
        found.append(item)
        drawn.append(torch.rand(2))
    torch.manual_seed(1)
    assert all(torch.equal(a, torch.rand(2)) for a in drawn)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    torch.manual_seed(4)
    assert all(torch.equal(a, torch.rand(2)) for a in expected)

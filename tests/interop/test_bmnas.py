"""BM-NAS's weights, logits and schedule: small cases made here; ``test_golden.py`` has the real numbers."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.errors import CheckpointError
from lightning_mmnas.fusion.input_nodes import InputNode
from lightning_mmnas.interop import bmnas

# Weights: a found network of one attention, one LinearGLU and one ConcatFC step, and a supernet, in BM-NAS's layout.

C, L = 3, 2


def norm_state(prefix: str, generator: torch.Generator, channels: int) -> dict[str, Tensor]:
    """LayerNorm over (c, l)."""
    return {f"{prefix}.{name}": torch.randn(channels, L, generator=generator) for name in ("weight", "bias")}


def conv_state(prefix: str, bn: str, generator: torch.Generator, inside: int, outside: int) -> dict[str, Tensor]:
    return {
        f"{prefix}.weight": torch.randn(outside, inside, 1, generator=generator),
        f"{prefix}.bias": torch.randn(outside, generator=generator),
        f"{bn}.weight": torch.randn(outside, generator=generator),
        f"{bn}.bias": torch.randn(outside, generator=generator),
        f"{bn}.running_mean": torch.randn(outside, generator=generator),
        f"{bn}.running_var": torch.rand(outside, generator=generator) + 0.5,
        f"{bn}.num_batches_tracked": torch.tensor(3),
    }


def found_state(seed: int = 0) -> dict[str, Tensor]:
    """One cell with the steps ScaleDotAttn, LinearGLU, ConcatFC, whose last two make up its output."""
    generator = torch.Generator().manual_seed(seed)
    cell = "cell._step_nodes.0.node_cell"
    return {
        **norm_state(f"{cell}.node_ops.0.ln", generator, C),
        **conv_state(f"{cell}.node_ops.1.conv", f"{cell}.node_ops.1.bn", generator, 2 * C, 2 * C),
        **conv_state(f"{cell}.node_ops.2.conv", f"{cell}.node_ops.2.bn", generator, 2 * C, C),
        **conv_state(f"{cell}.out_conv", f"{cell}.bn", generator, 2 * C, C),
        **norm_state(f"{cell}.ln", generator, C),
        **norm_state("cell.ln", generator, C),
    }


def found_network() -> FusionNetwork:
    space = FusionSpace(inputs=("a", "b"), cells=1, steps=3, step_outputs=2, channels=C, length=L)
    steps: list[dict[str, Any]] = [
        {"inputs": ("y", "x"), "primitive": "attention"},
        {"inputs": ("x", "step0"), "primitive": "linear_glu"},
        {"inputs": ("step1", "y"), "primitive": "concat_fc"},
    ]
    cells: Any = [{"inputs": ("a", "b"), "steps": steps}]
    return FusionNetwork(Genotype(space=space, cells=cells), readout="flatten").eval()


def reference(state: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """The found network in BM-NAS's own layout, states (b, c, l), in eval mode."""
    cell = "cell._step_nodes.0.node_cell"

    def layer_norm(x: Tensor, prefix: str) -> Tensor:
        return F.layer_norm(x, x.shape[1:], state[f"{prefix}.weight"], state[f"{prefix}.bias"])

    def conv_bn(x: Tensor, conv: str, bn: str) -> Tensor:
        out = F.conv1d(x, state[f"{conv}.weight"], state[f"{conv}.bias"])
        mean, variance = state[f"{bn}.running_mean"], state[f"{bn}.running_var"]
        return F.batch_norm(out, mean, variance, state[f"{bn}.weight"], state[f"{bn}.bias"])

    scores = b.transpose(1, 2) @ a / math.sqrt(C)
    attended = (scores.softmax(-1) @ a.transpose(1, 2)).transpose(1, 2)
    step0 = layer_norm(attended, f"{cell}.node_ops.0.ln")
    z = conv_bn(torch.cat([a, step0], 1), f"{cell}.node_ops.1.conv", f"{cell}.node_ops.1.bn")
    step1 = z[:, :C] * z[:, C:].sigmoid()
    step2 = conv_bn(torch.cat([step1, b], 1), f"{cell}.node_ops.2.conv", f"{cell}.node_ops.2.bn").relu()
    out = conv_bn(torch.cat([step1, step2], 1), f"{cell}.out_conv", f"{cell}.bn").relu()
    return layer_norm(layer_norm(out + a, f"{cell}.ln"), "cell.ln").relu().flatten(1)


@pytest.mark.parametrize("prefix", ["", "fusion_net.", "module.fusion_net."])
def test_found_weights_give_the_same_numbers(prefix: str) -> None:
    state, network = found_state(), found_network()
    others = {"central_classifier.weight": torch.zeros(2, 3), "reshape_layers.0.conv.weight": torch.zeros(3, 4, 1)}
    bmnas.load_state_dict(network, {prefix + name: value for name, value in (state | others).items()})
    a, b = torch.randn(2, 5, C, L, generator=torch.Generator().manual_seed(1))
    out = network({"a": a.transpose(1, 2), "b": b.transpose(1, 2)})
    torch.testing.assert_close(out, reference(state, a, b), rtol=1e-5, atol=1e-6)


def test_supernet_entries_are_renamed() -> None:
    generator = torch.Generator().manual_seed(0)
    operation = "cell._step_nodes.1.node_cell.node_ops.0._ops"
    state = {
        **norm_state(f"{operation}.1.ln", generator, C),
        **conv_state(f"{operation}.3.conv", f"{operation}.3.bn", generator, 2 * C, C),
    }
    converted = bmnas.convert_state_dict(state)
    steps = "cells.1.steps.0"
    assert set(converted) == {
        f"{steps}.1.norm.weight",
        f"{steps}.1.norm.bias",
        *(f"{steps}.3.linear.{name}" for name in ("weight_x", "weight_y", "bias")),
        *(
            f"{steps}.3.norm.{name}"
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ),
    }
    assert torch.equal(converted[f"{steps}.1.norm.weight"], state[f"{operation}.1.ln.weight"].T)
    assert torch.equal(converted[f"{steps}.3.linear.weight_x"], state[f"{operation}.3.conv.weight"][:, :C, 0])
    assert torch.equal(converted[f"{steps}.3.linear.weight_y"], state[f"{operation}.3.conv.weight"][:, C:, 0])


def test_conversion_is_linear() -> None:
    first, second = found_state(0), found_state(1)
    mixed = {name: 2 * first[name] - 3 * second[name] for name in first}
    a, b, c = (bmnas.convert_state_dict(state) for state in (first, second, mixed))
    for name in c:
        torch.testing.assert_close(c[name], 2 * a[name] - 3 * b[name])


def test_input_nodes_and_heads_are_left_alone() -> None:
    genotype = found_network().genotype
    network = FusionNetwork(genotype, {"a": (4,), "b": (5,)}, readout="flatten")
    before = {name: value.clone() for name, value in network.input_nodes.state_dict().items()}
    bmnas.load_state_dict(network, found_state())
    after = network.input_nodes.state_dict()
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("shape", [(), (2,), (4, 1, 1), (2, 2, 2, 2), (4, 5, 1), (7, 6, 1)])
@pytest.mark.parametrize("name", ["node_ops.1.conv.weight", "node_ops.0.ln.weight", "out_conv.weight", "bn.weight"])
def test_weights_of_wrong_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    entry = f"cell._step_nodes.0.node_cell.{name}"
    with pytest.raises(CheckpointError, match=r"shape|another architecture: \d entries differ"):
        bmnas.load_state_dict(found_network(), {**found_state(), entry: torch.zeros(shape)})


def test_weights_of_another_network_are_refused() -> None:
    state = found_state()
    missing = {name: value for name, value in state.items() if "out_conv" not in name}
    with pytest.raises(CheckpointError, match=r"2 entries differ, first 'cells.0.output.linear.bias': .* None"):
        bmnas.load_state_dict(found_network(), missing)
    extra = {**state, "cell._step_nodes.1.node_cell.ln.weight": torch.zeros(C, L)}
    with pytest.raises(CheckpointError, match=r"1 entries differ, first 'cells.1.output.norm.weight': .* None"):
        bmnas.load_state_dict(found_network(), extra)
    wider = FusionNetwork(found_network().genotype, readout="pool")
    with pytest.raises(CheckpointError, match=r"'readout\.norm"):
        bmnas.load_state_dict(wider, state)


def test_unknown_entries_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no BM-NAS fusion weights .* found \['encoder.weight'\]"):
        bmnas.convert_state_dict({"encoder.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"unknown entry 'x.cell._step_nodes.0.node_cell.gate.weight'"):
        bmnas.convert_state_dict({"x.cell._step_nodes.0.node_cell.gate.weight": torch.zeros(2)})


def supernet(pairing: str = "tied") -> FusionSupernet:
    space = FusionSpace(inputs=("a", "b", "c"), cells=2, steps=2, channels=C, length=L)
    return FusionSupernet(space, pairing=pairing, readout="flatten")  # type: ignore[arg-type]


def logits() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"alphas": (7, 2), "betas.0": (5, 2), "betas.1": (5, 2), "gammas.0": (2, 4), "gammas.1": (2, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_logits_are_split_by_cell() -> None:
    given, tied = logits(), supernet()
    bmnas.load_logits(tied, given)
    pairing = tied.logits
    assert torch.equal(pairing.alpha[0], given["alphas"][:3])
    assert torch.equal(pairing.alpha[1], given["alphas"][3:])
    for i in range(2):
        assert torch.equal(pairing.beta[i], given[f"betas.{i}"])
        assert torch.equal(pairing.gamma[i], given[f"gammas.{i}"])
    assert not any(p.requires_grad for p in tied.architecture_parameters())


def test_logits_of_another_space_are_refused() -> None:
    tied = supernet()
    with pytest.raises(CheckpointError, match=r"betas.1 must have shape \(5, 2\), found nothing"):
        bmnas.load_logits(tied, {name: value for name, value in logits().items() if name != "betas.1"})
    with pytest.raises(CheckpointError, match=r"alphas must have shape \(7, 2\), found \(9, 2\)"):
        bmnas.load_logits(tied, {**logits(), "alphas": torch.zeros(9, 2)})
    with pytest.raises(CheckpointError, match="fit a supernet with pairing='tied' only"):
        bmnas.load_logits(supernet("independent"), logits())


def test_reshape_layer_of_another_size_is_refused() -> None:
    node = InputNode(5, C, L)
    state = conv_state("conv", "bn", torch.Generator().manual_seed(0), 5, C)
    bmnas.load_reshape_layer(node, state)
    assert torch.equal(node.linear.weight, state["conv.weight"][..., 0])
    assert torch.equal(node.norm.weight, state["bn.weight"])
    with pytest.raises(CheckpointError, match=r"not the weights of this BM-NAS reshape layer: (?s:.*)linear.bias"):
        bmnas.load_reshape_layer(node, {name: value for name, value in state.items() if name != "conv.bias"})
    with pytest.raises(CheckpointError, match="size mismatch"):
        bmnas.load_reshape_layer(InputNode(6, C, L), state)


def rates(eta_max: float, eta_min: float, period: int, factor: int, per_epoch: int, steps: int) -> list[float]:
    """Section 7 of the description of the reference, line by line."""
    found, it = [], 0
    for _ in range(steps):
        current = it / per_epoch
        it += 1
        rate = eta_min + (eta_max - eta_min) * (1 + math.cos(math.pi * current / period)) / 2
        found.append(rate)
        if rate <= eta_min + 1e-10:
            period *= factor
            it = 0
    return found


@pytest.mark.parametrize(
    ("period", "factor", "per_epoch", "steps"), [(1, 2, 1, 40), (1, 2, 7, 120), (2, 3, 4, 120), (3, 1, 5, 60)]
)
def test_schedule_equals_loop(period: int, factor: int, per_epoch: int, steps: int) -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=9.0)
    schedule = bmnas.CosineRestarts(optimizer, 1e-2, 1e-5, period, factor, per_epoch)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]  # before the first batch
    found = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == found[-1]
    assert found == pytest.approx(rates(1e-2, 1e-5, period, factor, per_epoch, steps), rel=1e-12)
    lowest = [i for i, rate in enumerate(found) if rate < 1.1e-5]
    first = period * per_epoch
    assert lowest[:2] == [first, first + period * factor * per_epoch + 1]  # then the rate starts anew
    assert found[first + 1] == pytest.approx(1e-2)


def test_schedule_goes_on_from_its_state() -> None:
    def build() -> tuple[torch.optim.Optimizer, bmnas.CosineRestarts]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, bmnas.CosineRestarts(optimizer, batches_per_epoch=3)

    def run(optimizer: torch.optim.Optimizer, schedule: bmnas.CosineRestarts, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            found.append(float(schedule.get_last_lr()[0]))
        return found

    optimizer, schedule = build()
    run(optimizer, schedule, 6)  # past the first restart
    saved = schedule.state_dict()
    wanted = run(optimizer, schedule, 20)
    resumed_optimizer, resumed = build()
    resumed.load_state_dict(saved)
    assert run(resumed_optimizer, resumed, 20) == wanted

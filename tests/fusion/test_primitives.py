"""Fusion primitives against explicit formulas, written with loops and einsum."""

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.batch_norm import over_positions
from lightning_mmnas.fusion.primitives import (
    PRIMITIVES,
    Attention,
    ConcatFC,
    LinearGLU,
    PairLinear,
    Primitive,
    build_primitive,
    primitive_class,
)
from lightning_mmnas.space.primitive_names import is_symmetric

B, L, C = 5, 3, 4
EPS = 1e-5


class Difference(nn.Module):
    """A user's primitive: scale (x - y), which is not symmetric."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.sizes = (channels, length, dropout)
        self.scale = nn.Parameter(torch.full((length, channels), 0.5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * (x - y)


NOT_A_CLASS = 3


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, B, L, C, generator=generator, dtype=torch.float64)
    return x, y


def build(name: str, dropout: float = 0.0) -> nn.Module:
    """A primitive in float64 whose parameters and statistics are all different from their initial values."""
    torch.manual_seed(1)
    primitive = build_primitive(name, C, L, dropout).double()
    for tensor in [*primitive.parameters(), *primitive.buffers()]:
        if tensor.is_floating_point():
            tensor.data.add_(torch.rand_like(tensor))
    return primitive


def normalise_positions(z: Tensor, norm: nn.BatchNorm1d, train: bool) -> Tensor:
    """Batch norm, channel by channel: biased variance over batch and positions, or running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    out = torch.empty_like(z)
    for ch in range(z.shape[-1]):
        values = z[..., ch].flatten()
        mean = values.sum() / len(values) if train else norm.running_mean[ch]
        variance = ((values - mean) ** 2).sum() / len(values) if train else norm.running_var[ch]
        out[..., ch] = (z[..., ch] - mean) / (variance + EPS).sqrt() * norm.weight[ch] + norm.bias[ch]
    return out


def pair_linear(x: Tensor, y: Tensor, linear: PairLinear) -> Tensor:
    """W [x; y] + bias with one matrix on the concatenated channels."""
    weight = torch.cat([linear.weight_x, linear.weight_y], dim=1)
    # b: sample, l: position, i: 2c input channels, o: output channels
    return torch.einsum("bli,oi->blo", torch.cat([x, y], dim=2), weight) + linear.bias


def attention(x: Tensor, y: Tensor, norm: nn.LayerNorm) -> Tensor:
    out = torch.empty_like(x)
    for b in range(len(x)):
        mixed = torch.zeros(L, C, dtype=x.dtype)
        for query in range(L):
            scores = [float((x[b, query] * y[b, key]).sum()) / math.sqrt(C) for key in range(L)]
            total = sum(math.exp(score) for score in scores)
            for key in range(L):
                mixed[query] += math.exp(scores[key]) / total * y[b, key]
        centred = mixed - mixed.sum() / (L * C)
        deviation = ((centred**2).sum() / (L * C) + EPS).sqrt()
        out[b] = centred / deviation * norm.weight + norm.bias
    return out


def test_zero_and_sum() -> None:
    x, y = inputs()
    assert torch.equal(build("zero")(x, y), torch.zeros(B, L, C, dtype=torch.float64))
    assert torch.equal(build("sum")(x, y), x + y)


def test_attention_equals_loops() -> None:
    x, y = inputs()
    primitive = build("attention")
    assert isinstance(primitive, Attention)
    torch.testing.assert_close(primitive(x, y), attention(x, y, primitive.norm), rtol=0, atol=1e-12)
    assert not torch.allclose(primitive(x, y), primitive(y, x))


@pytest.mark.parametrize("train", [True, False])
def test_linear_glu_equals_loops(train: bool) -> None:
    x, y = inputs()
    primitive = build("linear_glu").train(train)
    assert isinstance(primitive, LinearGLU)
    z = normalise_positions(pair_linear(x, y, primitive.linear), primitive.norm, train)
    wanted = z[..., :C] / (1 + torch.exp(-z[..., C:]))
    torch.testing.assert_close(primitive(x, y), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("train", [True, False])
def test_concat_fc_equals_loops(train: bool) -> None:
    x, y = inputs()
    primitive = build("concat_fc").train(train)
    assert isinstance(primitive, ConcatFC)
    wanted = normalise_positions(pair_linear(x, y, primitive.linear), primitive.norm, train).clamp(min=0)
    assert 0 < (wanted == 0).double().mean() < 1
    torch.testing.assert_close(primitive(x, y), wanted, rtol=0, atol=1e-12)


def test_batch_norm_keeps_running_statistics_with_unbiased_variance() -> None:
    x, _ = inputs()
    norm = nn.BatchNorm1d(C).double()
    over_positions(norm, x)
    values = x.reshape(-1, C)
    variance = ((values - values.mean(0)) ** 2).sum(0) / (B * L - 1)
    torch.testing.assert_close(norm.running_mean, 0.1 * values.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance)


@pytest.mark.parametrize("name", [name for name in PRIMITIVES if is_symmetric(name)])
@pytest.mark.parametrize("train", [True, False])
def test_symmetric_primitives_are_symmetric_up_to_their_weights(name: str, train: bool) -> None:
    x, y = inputs()
    primitive, swapped = build(name).train(train), build(name).train(train)
    state = primitive.state_dict()
    other = {"weight_x": "weight_y", "weight_y": "weight_x"}
    swapped.load_state_dict(
        {
            ".".join([*key.split(".")[:-1], other.get(key.split(".")[-1], key.split(".")[-1])]): v
            for key, v in state.items()
        }
    )
    torch.testing.assert_close(primitive(x, y), swapped(y, x), rtol=0, atol=1e-13)
    if name in ("linear_glu", "concat_fc"):  # and the weights did have to be swapped
        assert not torch.allclose(primitive(x, y), primitive(y, x))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_tied_inputs_equal_the_general_path(name: str) -> None:
    x, _ = inputs()
    u, v, w = x.clone().requires_grad_(), x.clone().requires_grad_(), x.clone().requires_grad_()
    tied, general = build(name), build(name)
    torch.testing.assert_close(tied(u, u), general(v, w), rtol=0, atol=1e-13)
    if name == "zero":
        return
    tied(u, u).square().sum().backward()
    general(v, w).square().sum().backward()
    assert u.grad is not None
    assert v.grad is not None
    assert w.grad is not None
    torch.testing.assert_close(u.grad, v.grad + w.grad, rtol=0, atol=1e-11)
    for (key, p), q in zip(tied.named_parameters(), general.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-11, msg=key)


def test_tied_inputs_take_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = torch.nn.functional.linear

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    x, y = inputs()
    linear = PairLinear(C, C).double()
    linear(x, x)
    assert len(calls) == 1
    linear(x, y)
    assert len(calls) == 3


def test_pair_linear_starts_like_a_linear_layer_on_the_concatenation() -> None:
    torch.manual_seed(0)
    linear = PairLinear(50, 400)
    for parameter in linear.parameters():  # uniform in ± 1 / sqrt(2c)
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.098
        assert parameter.detach().mean().abs() < 0.01


@pytest.mark.parametrize("name", ["attention", "linear_glu", "concat_fc"])
def test_dropout_is_where_it_is_documented(name: str) -> None:
    x, y = inputs()
    primitive, plain = build(name, dropout=0.5), build(name)
    torch.testing.assert_close(primitive.eval()(x, y), plain.eval()(x, y))
    torch.manual_seed(0)
    out, wanted = primitive.train()(x, y), plain.train()(x, y)
    if name == "attention":  # before the norm: no value of the output is exactly zero
        assert (out != 0).all()
        assert not torch.allclose(out, wanted)
    else:  # last: every value is dropped or doubled
        kept = out != 0
        assert 0.2 < kept[wanted != 0].double().mean() < 0.8
        torch.testing.assert_close(out[kept], 2 * wanted[kept])


def test_attention_has_second_derivatives() -> None:
    x, y = (t.requires_grad_() for t in inputs())
    assert torch.autograd.gradgradcheck(build("attention"), (x, y))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("conv", r"'conv' is neither one of \['attention', .*'zero'\] nor an importable class path"),
        ("no.such.module.Thing", "not an importable|No module named 'no'"),
        ("torch.nn.NoSuchLayer", "NoSuchLayer"),
        ("torch.nn.functional.relu", "is not an nn.Module class"),
        ("builtins.dict", "is not an nn.Module class"),
        (f"{__name__}.NOT_A_CLASS", "is not an nn.Module class"),
        ("", "'' is neither"),
        (".relative", "'.relative' is neither"),
    ],
)
def test_unknown_primitives_are_refused(name: str, reason: str) -> None:
    with pytest.raises(GenotypeError, match=reason):
        primitive_class(name)


def test_primitive_of_ones_own_by_class_path() -> None:
    path = f"{__name__}.Difference"
    assert primitive_class(path) is Difference
    built = build_primitive(path, C, L, 0.25)
    assert isinstance(built, Difference)
    assert built.sizes == (C, L, 0.25)

    space = FusionSpace(inputs=("a", "b"), cells=1, channels=C, length=L, primitives=("sum", path))
    supernet = FusionSupernet(space).double()
    assert supernet.logits.variants == [("sum", False), (path, False), (path, True)]
    supernet.logits.gamma[0].data[0, 2] = 1.0
    genotype = supernet.decode()
    assert genotype.cells[0].steps[0].model_dump() == {"inputs": ("y", "x"), "primitive": path}

    network = FusionNetwork(genotype, readout="flatten").double()
    x, y = inputs()
    before = 0.5 * (y - x) + x  # the step and the residual; both layer norms have their initial weights
    normalised = nn.functional.layer_norm(nn.functional.layer_norm(before, (L, C)), (L, C))
    torch.testing.assert_close(network({"a": x, "b": y}), normalised.relu().transpose(1, 2).flatten(1))


def test_a_base_class_has_no_forward() -> None:
    x, y = inputs()
    with pytest.raises(NotImplementedError, match=r"Primitive must define forward\(x, y\)"):
        Primitive(C, L)(x, y)

"""Input nodes: pooling against torch's adaptive pooling and against loops, the grids, vectors, errors."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.input_nodes import InputNode, InputNodes, Pool, adaptive_pool, pool_positions

SIZES = [
    ((8, 1), (4, 1)),  # regular
    ((8, 8), (4, 4)),
    ((6, 9), (3, 3)),
    ((4, 4), (4, 1)),
    ((5, 3), (4, 1)),  # irregular in one axis or in both
    ((7, 6), (3, 3)),
    ((7, 5), (2, 2)),
    ((8, 7), (2, 2)),
    ((1, 1), (4, 1)),  # fewer values than positions
    ((1, 1), (2, 2)),
    ((3, 1), (2, 2)),
]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def window(position: int, positions: int, size: int) -> range:
    """Window of an adaptive pooling: from floor(p n / k) up to, not including, ceil((p + 1) n / k)."""
    return range(position * size // positions, math.ceil((position + 1) * size / positions))


def loops(planes: Tensor, size: tuple[int, int], pool: Pool) -> Tensor:
    b, c, height, width = planes.shape
    out = torch.empty(b, c, *size, dtype=planes.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            values = torch.stack(
                [planes[:, :, i, j] for i in window(row, size[0], height) for j in window(column, size[1], width)]
            )
            out[:, :, row, column] = values.max(0).values if pool == "max" else values.sum(0) / len(values)
    return out


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_equals_torch_and_loops(
    shape: tuple[int, int], size: tuple[int, int], pool: Pool, channels_last: bool
) -> None:
    planes = random(2, 3, *shape)
    if channels_last:  # in memory; the axes are where they were
        planes = planes.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    planes.requires_grad_()
    torchs: Callable[..., Tensor] = F.adaptive_max_pool2d if pool == "max" else F.adaptive_avg_pool2d
    ours, wanted = adaptive_pool(planes, size, pool), torchs(planes, size)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-15)
    torch.testing.assert_close(ours, loops(planes, size, pool), rtol=0, atol=1e-15)
    weights = random(*ours.shape)
    mine, theirs = (torch.autograd.grad((out * weights).sum(), planes)[0] for out in (ours, wanted))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-15)


def test_gradient_of_a_maximum_is_shared_among_equal_ones() -> None:
    planes = torch.tensor([2.0, 2.0, 1.0, 3.0]).view(1, 1, 4, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(adaptive_pool(planes, (2, 1), "max").sum(), planes)
    assert gradient.flatten().tolist() == [0.5, 0.5, 0.0, 1.0]


def node_of(channels_in: int, length: int, pool: Pool = "max", grid: str = "auto") -> InputNode:
    torch.manual_seed(0)
    return InputNode(channels_in, 4, length, pool=pool, grid=grid).double()  # type: ignore[arg-type]


def after_pooling(node: InputNode, positions: Tensor) -> Tensor:
    """1x1 convolution, batch norm in train mode, ReLU of pooled (b, c_in, l)."""
    out = torch.einsum("bil,oi->blo", positions, node.linear.weight) + node.linear.bias
    mean, variance = out.mean((0, 1)), out.var((0, 1), unbiased=False)
    return ((out - mean) / (variance + 1e-5).sqrt()).clamp(min=0)


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize(
    ("shape", "length", "grid", "size"),
    [
        ((7,), 4, "auto", (4, 1)),  # a sequence
        ((8,), 4, "line", (4, 1)),
        ((8,), 4, "square", (2, 2)),
        ((5, 6), 4, "auto", (2, 2)),  # an image
        ((5, 6), 4, "line", (4, 1)),
        ((5, 6), 6, "auto", (6, 1)),  # 6 is not a square number
        ((4, 3, 5), 9, "auto", (3, 3)),  # a video: all that follows the first axis is one
        ((4, 3, 5), 4, "line", (4, 1)),
    ],
)
def test_node_equals_the_reshape_layers_of_the_reference(
    shape: tuple[int, ...], length: int, grid: str, size: tuple[int, int], pool: Pool
) -> None:
    feature = random(6, 3, *shape)
    node = node_of(3, length, pool, grid)
    planes = feature.reshape(6, 3, shape[0], -1)
    wanted = after_pooling(node, loops(planes, size, pool).flatten(2))
    out = node(feature)
    assert out.shape == (6, length, 4)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", ["auto", "line", "square"])
def test_vector_becomes_equal_copies(grid: str) -> None:
    feature = random(6, 3)
    node = node_of(3, 4, grid=grid)
    out = node(feature)
    torch.testing.assert_close(out, after_pooling(node, feature[:, :, None].expand(-1, -1, 4)))
    assert (out == out[:, :1]).all()


def test_dropout_comes_last() -> None:
    torch.manual_seed(0)
    node = InputNode(3, 4, 2, dropout=0.5)
    feature = random(50, 3, 8).float()
    plain = node_of(3, 2).float()
    plain.load_state_dict(node.state_dict())
    wanted, out = plain(feature), node(feature)
    kept = out != 0
    assert 0.3 < kept[wanted != 0].double().mean() < 0.7
    torch.testing.assert_close(out[kept], 2 * wanted[kept])


def test_square_grid_needs_a_square_number() -> None:
    with pytest.raises(GenotypeError, match=r"needs a square number as length, not 8; use grid='line'"):
        InputNode(3, 4, 8, grid="square")


def test_nodes_stand_in_the_order_of_the_names() -> None:
    shapes = {"image/0": (3, 4, 4), "text": (5,), "image/1": (2, 2, 2)}
    nodes = InputNodes(["text", "image/1"], shapes, channels=4, length=4).double()
    assert nodes.nodes is not None
    assert list(nodes.nodes) == ["text", "image/1"]
    features = {name: random(3, *shape) for name, shape in shapes.items()}
    out = nodes(features)
    assert [node.shape for node in out] == [(3, 4, 4)] * 2
    torch.testing.assert_close(out[0], nodes.nodes["text"](features["text"]))
    torch.testing.assert_close(out[1], nodes.nodes["image/1"](features["image/1"]))


def test_names_that_differ_in_a_dot_only_have_nodes_of_their_own() -> None:
    shapes = {"left.wrist/0": (3, 8), "left_wrist/0": (3, 8)}
    nodes = InputNodes(list(shapes), shapes, channels=4, length=4)
    assert nodes.nodes is not None
    assert len(nodes.nodes) == 2
    feature = torch.randn(3, 3, 8)
    first, second = nodes(dict.fromkeys(shapes, feature))
    assert not torch.allclose(first, second)


def test_without_shapes_features_are_taken_as_they_are() -> None:
    nodes = InputNodes(["b", "a"], None, channels=4, length=2)
    assert not list(nodes.parameters())
    a, b = random(2, 3, 2, 4)
    assert [id(node) for node in nodes({"a": a, "b": b})] == [id(b), id(a)]


def test_input_without_a_shape_is_named() -> None:
    with pytest.raises(GenotypeError, match=r"inputs \['audio/0'\] .* features \['image/0'\]; check the encoders"):
        InputNodes(["image/0", "audio/0"], {"image/0": (3,)}, channels=4, length=2)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 8), (2, 3)])
def test_what_was_pooled_is_not_changed_by_being_pooled_again(shape: tuple[int, ...]) -> None:
    pools: tuple[Pool, ...] = ("max", "avg")
    for pool in pools:
        once = pool_positions(torch.randn(shape), 4, pool, "auto")
        torch.testing.assert_close(pool_positions(once, 4, pool, "auto"), once, rtol=0, atol=0)

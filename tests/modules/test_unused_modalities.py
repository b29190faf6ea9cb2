"""What a configuration says of modalities not in use is left aside; what is no encoder, or lacks features, is told."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mmnas import Encoder, FusionNetwork, FusionSpace
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.data.spec import Modalities, ModalitySpec
from lightning_mmnas.errors import ConfigError, GenotypeError
from lightning_mmnas.modules.base import build_views
from lightning_mmnas.modules.frozen import FrozenEncoders, build_encoders
from lightning_mmnas.views import MotionViews, SkeletonViews
from tests.data.table.make_table import make_table

BODY, FILM = ModalitySpec("skeleton", (3, 8, 5, 1)), ModalitySpec("video", (3, 4, 8, 8))


def test_entries_of_other_modalities_are_left_out_and_unknown_ones_refused() -> None:
    used = Modalities({"body": BODY}, {"film": FILM})
    given = {"skeleton": SkeletonViews(), "video": MotionViews(), "film": MotionViews()}
    assert list(build_views(used, given).augmentations) == ["skeleton"]
    with pytest.raises(ConfigError, match="'vidoe', which is neither a modality nor a kind"):
        build_views(used, {"skeleton": SkeletonViews(), "vidoe": MotionViews()})
    with pytest.raises(ConfigError, match=r"encoders for \['flim'\]"):
        build_encoders(used, {"film": object, "flim": object})  # type: ignore[dict-item]


def test_a_table_with_one_of_its_modalities(tmp_path: Path) -> None:
    table = make_table(tmp_path, rows=30)
    options = [f"--data.init_args.table={table}", "--data.init_args.batch_size=8", "--trainer.fast_dev_run=1"]
    options += ["--data.init_args.modalities=[numbers]", "--run_dir", str(tmp_path / "run")]
    assert main(["fit", *config_options(find_configs("table") / "encoders.yaml"), *options]) == 0


class Plain(Encoder):
    """An encoder that forgets the list."""

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        return [(4,)]

    def forward(self, x: torch.Tensor) -> Any:
        return x.flatten(1)[:, :4]


def test_what_is_no_encoder_is_told() -> None:
    given: list[tuple[Any, str]] = [
        (torch.nn.Identity(), "'film' is a module; give its class, or functools.partial"),
        (torch.nn.Identity, "'film', Identity, is none: it has no feature_shapes; subclass"),
    ]
    for factory, message in given:
        with pytest.raises(ConfigError, match=message):
            build_encoders({"film": FILM}, {"film": factory})
    encoders = FrozenEncoders(build_encoders({"film": FILM}, {"film": Plain}))
    with pytest.raises(ConfigError, match="'film', Plain, returned Tensor; it must return a list"):
        encoders({"film": torch.zeros(2, *FILM.shape)})


def test_features_that_a_network_lacks_are_named() -> None:
    space = FusionSpace(inputs=("a/0", "b/0"), cells=1, steps=1, channels=4, length=2)
    network = FusionNetwork(space.sample(torch.Generator().manual_seed(0)), {"a/0": (3,), "b/0": (5,)})
    with pytest.raises(GenotypeError, match=r"the network reads \['b/0'\], but the features are \['a/0'\]"):
        network({"a/0": torch.zeros(2, 3)})

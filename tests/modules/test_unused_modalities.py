"""What a configuration says of modalities that the data have, but that are not in use, is left aside."""

from pathlib import Path

import pytest

from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.data.spec import Modalities, ModalitySpec
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.modules.base import build_views
from lightning_mmnas.modules.frozen import build_encoders
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

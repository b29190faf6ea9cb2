"""`common.yaml`: said once, taken by every stage, asked for where it is missing; folders without one still run."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from lightning_mmnas import FusionSpace
from lightning_mmnas.commands.lightning_cli import MMNASCLI, ConfigCheck
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.shared import config_options, stage_files
from lightning_mmnas.commands.stages import STAGES, Stage, find_configs, read_stages
from lightning_mmnas.errors import ConfigError
from tests.data.file_toys import make_files

ENCODER = {"a": {"class_path": "tests.commands.toys.ToyEncoder", "init_args": {"channels": 5}}}
TRAINER: dict[str, Any] = {
    "max_epochs": 2,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SAVED = "/checkpoints"


def _checkpoint(folder: str) -> dict[str, Any]:
    return {"class_path": "ModelCheckpoint", "init_args": {"dirpath": folder + SAVED, "save_last": True}}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder whose stages say everything themselves."""
    stages = {}
    for i, name in enumerate(STAGES):
        folder = f"${{run_dir}}/{name}"
        stages[name] = {
            "run_dir": "runs/toy",
            "seed_everything": 0,
            "trainer": {**TRAINER, "default_root_dir": folder, "callbacks": [_checkpoint(folder)]},
            "model": {
                "class_path": "tests.commands.toys.LinkedModule",
                "init_args": {"encoders": ENCODER, "learning_rate": 0.1 * (i + 1)},
            },
            "data": {"class_path": "tests.commands.toys.ToyData", "init_args": {"size": 12, "batch_size": 4}},
        }
    return _write(tmp_path / "old", stages)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The same with a common file."""
    common = {
        "run_dir": "runs/toy",
        "seed_everything": 0,
        "shared": {"encoders": ENCODER},
        "trainer": {**TRAINER, "callbacks": [_checkpoint("${trainer.default_root_dir}")]},
        "data": {"class_path": "tests.commands.toys.ToyData", "init_args": {"size": 12}},
    }
    files: dict[str, Any] = {"common": common}
    for i, name in enumerate(STAGES):
        arguments = {"encoders": "${shared.encoders}", "learning_rate": 0.1 * (i + 1)}
        files[name] = {
            "trainer": {"default_root_dir": f"${{run_dir}}/{name}"},
            "model": {"class_path": "tests.commands.toys.LinkedModule", "init_args": arguments},
            "data": {"init_args": {"batch_size": 4}},
        }
    return _write(tmp_path / "new", files)


def _write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def _resolved(stage: Path, *options: str) -> dict[str, Any]:
    return ConfigCheck(["fit", *config_options(stage), *options]).resolved()


@pytest.mark.slow
def test_a_folder_of_the_old_form_gives_the_same_results(tmp_path: Path, old: Path, new: Path) -> None:
    found = []
    for folder in (old, new):
        output = tmp_path / f"run-{folder.name}"
        results = run(folder, output, seed=3, console=Console(file=io.StringIO()))
        for name in ("command", "total_seconds", "comparison_seconds", "stages"):
            del results[name]
        weights = {
            stage: torch.load(output / stage / "checkpoints" / "last.ckpt", weights_only=True) for stage in STAGES
        }
        found.append((results, weights))
        saved = yaml.safe_load((output / "search" / "config.yaml").read_text())
        assert saved["model"]["init_args"]["encoders"] == ENCODER
    assert found[0][0] == found[1][0]
    for stage in STAGES:
        before, after = found[0][1][stage], found[1][1][stage]
        assert before["hyper_parameters"]["encoders"] == after["hyper_parameters"]["encoders"]
        assert before["state_dict"].keys() == after["state_dict"].keys()
        for name, value in before["state_dict"].items():
            assert torch.equal(value, after["state_dict"][name]), (stage, name)


@pytest.mark.slow
def test_an_encoder_is_swapped_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    shutil.copytree(find_configs("watch"), folder)
    common = folder / "common.yaml"
    before = {name: _resolved(folder / f"{name}.yaml") for name in STAGES}
    text = common.read_text()
    line = "    motion: {class_path: MotionEncoder, init_args: {channels: [32, 64, 64]}}\n"
    assert text.count(line) == 1
    common.write_text(text.replace(line, "    motion: {class_path: MotionEncoder, init_args: {channels: [8, 8]}}\n"))
    for name in STAGES:
        after = _resolved(folder / f"{name}.yaml")
        encoder = after["model"]["init_args"]["encoders"]["motion"]
        assert encoder["init_args"]["channels"] == [8, 8]
        # Nothing else changes, and the defaults of the class stand beside what is given.
        encoder["init_args"]["channels"] = [32, 64, 64]
        assert after["model"] == before[name]["model"]
        assert "kernel_size" in encoder["init_args"]


def test_the_files_of_a_stage(old: Path, new: Path) -> None:
    assert stage_files(new / "search.yaml") == [new / "common.yaml", new / "search.yaml"]
    assert stage_files(new / "common.yaml") == [new / "common.yaml"]
    assert stage_files(old / "search.yaml") == [old / "search.yaml"]
    arguments = Stage("search", new / "search.yaml").arguments(Path("x"), 1)
    assert arguments[:5] == ["fit", "--config", str(new / "common.yaml"), "--config", str(new / "search.yaml")]


def test_the_common_file_belongs_to_what_a_run_is(new: Path) -> None:
    stages = read_stages(new, [])
    before = [stage.digest(0) for stage in stages]
    common = new / "common.yaml"
    content = yaml.safe_load(common.read_text())
    common.write_text(f"# new\n{json.dumps(content)}")
    assert [stage.digest(0) for stage in stages] == before
    content["data"]["init_args"]["size"] = 16
    common.write_text(json.dumps(content))
    after = [stage.digest(0) for stage in stages]
    # The comparison has a file of its own; that the stages before it differ is told by theirs.
    assert [a != b for a, b in zip(after, before, strict=True)] == [True] * 4 + [False]
    common.write_text("shared: [")
    with pytest.raises(ConfigError, match=r"common\.yaml is not valid YAML"):
        run(new, new / "run", console=Console(file=io.StringIO()))


def test_the_saved_configuration_runs_by_itself(tmp_path: Path, new: Path) -> None:
    run_dir = tmp_path / "run"
    first = MMNASCLI(["fit", *config_options(new / "search.yaml"), "--run_dir", str(run_dir)])
    saved = run_dir / "search" / "config.yaml"
    alone = tmp_path / "alone.yaml"
    shutil.copy(saved, alone)
    second = MMNASCLI(["fit", "--config", str(alone)])
    assert second.resolved()["model"] == first.resolved()["model"]
    assert yaml.safe_load(saved.read_text()) == yaml.safe_load(alone.read_text())


def test_shared_entries_on_the_command_line(new: Path) -> None:
    encoders = "{a: {class_path: tests.commands.toys.ToyEncoder, init_args: {channels: 7}}}"
    found = _resolved(new / "search.yaml", "--shared.encoders", encoders, "--shared.size=7", "--shared.at=${run_dir}/x")
    assert found["model"]["init_args"]["encoders"]["a"]["init_args"]["channels"] == 7
    assert found["shared"]["at"] == "runs/toy/x"
    options = ("--shared.size=7", "--data.size=${shared.size}", "--model.learning_rate=${shared.rate}")
    found = _resolved(new / "search.yaml", "--shared.rate=0.5", *options)
    assert found["model"]["init_args"] | {"modalities": None, "num_classes": None} == {
        "encoders": ENCODER,
        "learning_rate": 0.5,
        "modalities": None,
        "num_classes": None,
    }
    assert found["data"]["init_args"]["size"] == 7


def test_shared_entries_are_taken_as_they_stand(new: Path) -> None:
    common = new / "common.yaml"
    content = yaml.safe_load(common.read_text())
    content["shared"] |= {"name": "123", "flag": "yes", "classes": [ENCODER["a"]], "nothing": None}
    common.write_text(yaml.safe_dump(content))
    assert _resolved(new / "search.yaml")["shared"] == content["shared"]


@pytest.mark.parametrize("option", ["--shared.encoders.a.init_args.channels", "--shared.encoders.a"])
@pytest.mark.parametrize("equals", [True, False])
def test_a_part_of_a_shared_entry_is_refused(option: str, equals: bool, new: Path) -> None:
    words = [f"{option}=8"] if equals else [option, "8"]
    with pytest.raises(
        ConfigError, match=r"is a part of shared\.encoders; give that as a whole: --shared\.enc"
    ) as error:
        _resolved(new / "search.yaml", *words)
    assert "\n" not in str(error.value)


def test_a_part_of_what_the_model_takes_from_shared(new: Path) -> None:
    for option in ("--model.encoders.a.init_args.channels", "--model.init_args.encoders.a.init_args.channels"):
        with pytest.raises(ConfigError, match=r"encoders is shared\.encoders, to be given as a whole: --shared"):
            _resolved(new / "search.yaml", option, "8")


@pytest.mark.parametrize("command", [["fit"], ["cache"], ["cost", "genotype.json"], ["sample", "--output", "x"]])
def test_a_stage_without_its_common_file(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command[0] == "sample":
        pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    space = FusionSpace(inputs=("a/0", "b/0"), cells=1, channels=4, length=2)
    next(iter(space.enumerate())).save(tmp_path / "genotype.json")
    folder = find_configs("avmnist")
    way_out = f"--config {folder / 'common.yaml'} --config {folder / 'search.yaml'}"
    for given in (["--config", str(folder / "search.yaml")], [f"--config={folder / 'search.yaml'}"]):
        assert main([*command, *given]) == 2
        told = capsys.readouterr().err.strip()
        assert way_out in told
        assert "\n" not in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("part", ["model", "data"])
def test_a_class_or_an_entry_that_only_the_common_file_has(part: str, new: Path) -> None:
    stage = new / "search.yaml"
    content = yaml.safe_load(stage.read_text())
    del content["model" if part == "data" else "data"]
    stage.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"goes with the common file beside it: --config .*common\.yaml --config"):
        ConfigCheck(["fit", "--config", str(stage)])
    # Where all files are given, a mistake is told as it is; so it is where there is no common file.
    (new / "own.yaml").write_text("model: {init_args: {encoders: '${shared.encodrs}'}}")
    with pytest.raises(ConfigError, match=r"'shared\.encodrs' not found; `shared` of the last file") as error:
        ConfigCheck(["fit", *config_options(new / "finetune.yaml"), "--config", str(new / "own.yaml")])
    assert "beside it" not in str(error.value)


@pytest.mark.slow
def test_data_of_a_single_stage(new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path / "files")
    common = {
        "run_dir": str(tmp_path / "run"),
        "data": {"class_path": "tests.data.file_toys.NumberFiles", "init_args": {"root": str(tmp_path / "files")}},
    }
    (new / "common.yaml").write_text(yaml.safe_dump(common | {"shared": {"encoders": {}}}))
    for name in STAGES:
        stage = yaml.safe_load((new / f"{name}.yaml").read_text())
        stage["data"]["init_args"] = {"on_error": "skip"}
        (new / f"{name}.yaml").write_text(yaml.safe_dump(stage))
    stage_file = new / "search.yaml"
    assert main(["data", str(stage_file)]) == 0
    assert f"{stage_file} with {new / 'common.yaml'} before it" in capsys.readouterr().out
    first = json.loads((tmp_path / "run-data" / "data.json").read_text())
    assert main(["data", str(new)]) == 0
    assert "before it" not in capsys.readouterr().out
    second = json.loads((tmp_path / "run-data" / "data.json").read_text())
    assert first["splits"] == second["splits"]

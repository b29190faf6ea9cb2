"""MMNASCLI: interpolation, links, hyperparameters, saved configurations."""

import copy
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_mmnas.commands.lightning_cli import MMNASCLI, ConfigCheck
from lightning_mmnas.errors import CheckpointError, ConfigError
from tests.commands.toys import LinkedModule, Spec, ToyModule

CONFIG: dict[str, Any] = {
    "run_dir": "nowhere",
    "seed_everything": 0,
    "model": {
        "class_path": "tests.commands.toys.ToyModule",
        "init_args": {"folder": "${run_dir}/search", "hidden": "${data.init_args.batch_size}"},
    },
    "data": {"class_path": "tests.commands.toys.ToyData", "init_args": {"batch_size": 4}},
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": "${run_dir}/search",
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return _write(tmp_path / "toy.yaml", CONFIG)


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def _fit(config: Path, *args: str) -> MMNASCLI:
    return MMNASCLI(["fit", "--config", str(config), "--run_dir", str(config.parent / "run"), *args])


def _changed(tmp_path: Path, section: str, **values: Any) -> Path:
    content = {**CONFIG, section: {**CONFIG[section], **values}}
    return _write(tmp_path / "toy.yaml", content)


def test_interpolation_follows_a_later_file_and_the_command_line(tmp_path: Path, config: Path) -> None:
    later = _write(tmp_path / "later.yaml", {"data": {"init_args": {"batch_size": 2}}, "run_dir": "unused"})
    run_dir = str(tmp_path / "other")
    cli = MMNASCLI(["fit", "-c", str(config), "-c", str(later), "--run_dir", run_dir])
    assert cli.model.hparams["folder"] == f"{run_dir}/search"
    assert cli.model.hparams["hidden"] == 2
    assert cli.trainer.default_root_dir == f"{run_dir}/search"


def test_interpolation_on_the_command_line_itself(tmp_path: Path, config: Path) -> None:
    cli = _fit(config, "--model.folder", "${run_dir}/${model.init_args.hidden}")
    assert cli.model.hparams["folder"] == f"{tmp_path}/run/4"


def test_interpolation_on_a_command_line_without_a_command(tmp_path: Path, config: Path) -> None:
    args = ["--config", str(config), "--run_dir", str(tmp_path), "--model.folder", "${run_dir}/x"]
    assert MMNASCLI(args, run=False, save_config_callback=None).model.hparams["folder"] == f"{tmp_path}/x"


def test_everything_is_written_below_run_dir_by_default(tmp_path: Path) -> None:
    content = {**CONFIG, "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False}}
    cli = _fit(_write(tmp_path / "toy.yaml", content), "--trainer.enable_progress_bar=false")
    assert cli.trainer.default_root_dir == str(tmp_path / "run")


def test_resolved_config_is_saved_runs_again_and_does_not_mind_a_rerun(tmp_path: Path, config: Path) -> None:
    _fit(config, "--model.hidden", "5")
    saved = tmp_path / "run" / "search" / "config.yaml"
    content = yaml.safe_load(saved.read_text())
    assert content["model"]["init_args"]["folder"] == "${run_dir}/search"
    assert content["model"]["init_args"]["hidden"] == 5
    cli = MMNASCLI(["fit", "--config", str(saved)])
    assert cli.model.hparams["hidden"] == 5


def test_other_commands_leave_the_config_of_fit_alone(tmp_path: Path, config: Path) -> None:
    _fit(config, "--model.hidden", "5")
    MMNASCLI(["test", "--config", str(config), "--run_dir", str(tmp_path / "run")])
    folder = tmp_path / "run" / "search"
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["hidden"] == 5
    assert (folder / "config_test.yaml").is_file()


def test_links_and_encoder_factories(tmp_path: Path) -> None:
    encoders = {"a": {"class_path": "tests.commands.toys.ToyEncoder", "init_args": {"channels": 5}}}
    path = _changed(tmp_path, "model", class_path="LinkedModule", init_args={"encoders": encoders})
    cli = _fit(path, "--model.encoders.a.init_args.channels", "6")
    model = cli.model
    assert isinstance(model, LinkedModule)
    assert model.modalities == {"a": Spec("motion", (8,))}
    assert model.layer.out_features == 3
    assert model.encoders["a"].weight.shape == (6, 8)


def test_checkpoint_holds_plain_values_and_rebuilds_the_module(tmp_path: Path) -> None:
    encoders = {"a": {"class_path": "tests.commands.toys.ToyEncoder", "init_args": {"channels": 5}}}
    path = _changed(tmp_path, "model", class_path="LinkedModule", init_args={"encoders": encoders})
    _fit(path)
    checkpoint = next((tmp_path / "run").rglob("*.ckpt"))
    hparams = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    spec = {"kind": "motion", "shape": [8], "dtype": "torch.float32"}
    assert "_class_path" in hparams
    assert "modalities" not in hparams or hparams["modalities"] == {"a": spec}
    assert "task" not in hparams  # the module does not take it


def test_a_module_without_linked_arguments_has_none_in_its_hyperparameters(config: Path) -> None:
    hparams = _fit(config).model.hparams
    assert {name for name in hparams if not name.startswith("_")} == {
        "hidden",
        "learning_rate",
        "folder",
    }


@pytest.mark.parametrize("data", [["--data", "BareData"], []])
def test_missing_link_source_is_an_error(data: list[str], tmp_path: Path) -> None:
    args = ["--trainer.accelerator=cpu", "--run_dir", str(tmp_path)]
    with pytest.raises(ConfigError, match="LinkedModule needs the 'modalities' of a data module"):
        MMNASCLI(["fit", "--model", "LinkedModule", *data, *args])


def test_values_that_are_not_of_their_tags(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--model.hidden is not valid YAML: 'x' is no bool in .*, column 1$"):
        _fit(config, "--model.hidden", "!!bool x")
    with pytest.raises(ConfigError, match=r"^--trainer is not valid YAML: '' is no int in .*, column 5$"):
        _fit(config, "--trainer={a: !!int ''}")
    assert _fit(config, "--model.folder", "!x", "--model.hidden", "!!int 3").model.hparams["folder"] == "!x"


def test_misspelt_keys_name_the_nearest(tmp_path: Path) -> None:
    path = _changed(tmp_path, "model", init_args={"hiden": 3})
    with pytest.raises(ConfigError, match=r"Option 'hiden' is not accepted; did you mean 'hidden'\?"):
        _fit(path)


def test_misspelt_key_of_an_encoder(tmp_path: Path) -> None:
    encoders = {"a": {"class_path": "tests.commands.toys.ToyEncoder", "init_args": {"chanels": 5}}}
    path = _changed(tmp_path, "model", class_path="LinkedModule", init_args={"encoders": encoders})
    with pytest.raises(ConfigError, match=r"encoders: Option 'chanels' is not accepted.*'channels'"):
        _fit(path)


def test_misspelt_and_abbreviated_trainer_keys(tmp_path: Path, config: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trainer.max_epoch=3; did you mean 'max_epochs'"):
        _fit(config, "--trainer.max_epoch=3")
    with pytest.raises(ConfigError, match=r"'trainer.max_epoch'; did you mean 'max_epochs'"):
        _fit(_changed(tmp_path, "trainer", max_epoch=3))


def test_wrong_value(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"hidden.*many") as error:
        _fit(config, "--model.hidden", "many")
    assert "\n" not in str(error.value)
    assert "Union" not in str(error.value)


@pytest.mark.filterwarnings("ignore:(?s).*Unable to serialize instance")  # as an error it would have the parser go on
def test_pruning_by_the_name_of_a_function(config: Path) -> None:
    options = ["--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn=l1_unstructured"]
    cli = _fit(config, *options, "--trainer.callbacks.amount=0.5")
    values = torch.cat([value.flatten() for value in cli.model.layer.parameters()])
    assert int((values == 0).sum()) == len(values) // 2
    assert "pruning_fn: l1_unstructured" in (config.parent / "run" / "search" / "config.yaml").read_text()


def test_a_new_folder_of_checkpoints_is_not_said_to_be_full(tmp_path: Path) -> None:
    """The lock lay in it."""
    folder = {"dirpath": "${trainer.default_root_dir}/checkpoints"}
    callbacks = [{"class_path": name, "init_args": folder} for name in ("LastCheckpoint", "ModelCheckpoint")]
    config, message = _changed(tmp_path, "trainer", callbacks=callbacks), "exists and is not empty"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{message}")
        _fit(config)
    with pytest.warns(UserWarning, match=message):
        _fit(config)


def test_misspelt_class_and_choice(tmp_path: Path) -> None:
    callbacks: list[dict[str, Any]] = [{"class_path": "ModelCheckpont"}]
    with pytest.raises(ConfigError, match=r"'ModelCheckpont'.*did you mean 'ModelCheckpoint'\?"):
        _fit(_changed(tmp_path, "trainer", callbacks=callbacks))
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": {"save_last": "sometimes"}}]
    with pytest.raises(ConfigError, match=r"save_last: .*\['link'\]") as error:
        _fit(_changed(tmp_path, "trainer", callbacks=callbacks))
    assert len(str(error.value)) < 200


def test_bad_interpolation(tmp_path: Path) -> None:
    path = _changed(tmp_path, "trainer", default_root_dir="${run_dirr}/search")
    with pytest.raises(ConfigError, match=r"trainer\.default_root_dir.*'run_dirr' not found"):
        _fit(path)


def test_unknown_class_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing"):
        _fit(_changed(tmp_path, "model", class_path="Nothing"))
    with pytest.raises(ConfigError, match=r"does not exist.*none.yaml"):
        _fit(tmp_path / "none.yaml")


def test_checkpoint_hyperparameters_that_differ_are_named(tmp_path: Path, config: Path) -> None:
    _fit(config)
    checkpoint = str(next((tmp_path / "run").rglob("*.ckpt")))
    args = ["--config", str(config), "--run_dir", str(tmp_path / "run"), "--ckpt_path", checkpoint]
    MMNASCLI(["validate", *args])  # no difference, no warning
    with pytest.warns(UserWarning, match="hidden: 7 -> 4"):
        cli = MMNASCLI(["validate", *args, "--model.hidden", "7"])
    assert cli.model.hparams["hidden"] == 4


def test_a_checkpoint_is_read_once_before_lightning_reads_it(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fit(config)
    checkpoint = next((tmp_path / "run").rglob("*.ckpt"))
    load, read = torch.load, []

    def counted(*args: Any, **options: Any) -> Any:
        read.append(args)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", counted)
    MMNASCLI(["validate", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--ckpt_path", str(checkpoint)])
    assert len(read) == 2


def test_checkpoint_errors(tmp_path: Path, config: Path) -> None:
    _fit(config)
    checkpoint = str(next((tmp_path / "run").rglob("*.ckpt")))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        _fit(config, "--ckpt_path", str(tmp_path / "none.ckpt"))
    with pytest.raises(CheckpointError, match=r"toy.yaml.? is not a Lightning checkpoint \(Weights only load failed\)"):
        _fit(config, "--ckpt_path", str(config))
    linked = _changed(tmp_path, "model", class_path="LinkedModule", init_args={})
    with pytest.raises(CheckpointError, match="checkpoint"):
        _fit(linked, "--ckpt_path", checkpoint)


def test_interrupt_says_how_to_continue_and_restores_the_signal(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    path = _changed(tmp_path, "model", class_path="InterruptedModule", init_args={"flag": str(flag)})
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"continue with the same command and --ckpt_path"):
        _fit(path, "--trainer.max_epochs=3")
    assert signal.getsignal(signal.SIGINT) is handler


def test_from_python_without_a_command(tmp_path: Path) -> None:
    model = {"class_path": "tests.commands.toys.ToyModule"}
    content = {"model": model, "run_dir": str(tmp_path), "trainer": {"logger": False}}
    cli = MMNASCLI(content, run=False)
    assert isinstance(cli.model, ToyModule)
    assert cli.trainer.default_root_dir == str(tmp_path)


def test_names_of_columns_are_not_copied_for_each_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser copies what it knows of a list for each of its items: of hundreds of columns that took minutes."""
    calls: list[object] = []

    def counted(value: object) -> object:
        calls.append(value)
        return copy.deepcopy(value)

    monkeypatch.setattr("jsonargparse._typehints.deepcopy", counted)
    copies = {}
    for count in (2, 60):
        names = [f"n{i}" for i in range(count)]
        arguments = {"table": "t.csv", "columns": {"a": {"kind": "features", "columns": names}}}
        path = _write(tmp_path / "c.yaml", {"data": {"class_path": "TableDataModule", "init_args": arguments}})
        calls.clear()
        cli = ConfigCheck(["--model", "tests.commands.toys.ToyModule", "--config", str(path)], run=False)
        assert cli.config.data.init_args.columns["a"].columns == names
        assert cli.resolved()["data"]["init_args"]["columns"]["a"]["columns"] == names
        copies[count] = len(calls)
    assert copies[60] == copies[2]
    arguments["columns"]["a"]["columns"] = [1, 2]  # type: ignore[index]
    path = _write(tmp_path / "c.yaml", {"data": {"class_path": "TableDataModule", "init_args": arguments}})
    with pytest.raises(ConfigError, match=r"\[1, 2\]. is no list of names of columns; quote names that are numbers"):
        ConfigCheck(["--model", "tests.commands.toys.ToyModule", "--config", str(path)], run=False)

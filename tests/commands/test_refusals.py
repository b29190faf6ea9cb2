"""`mmnas fit` and `mmnas tabulate` do not write into a finished run of other settings."""

import os
from pathlib import Path

import pytest
import yaml

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.commands.changes import digest_of, make_manifest
from lightning_mmnas.commands.claiming import Claim, claim, resolve
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.refusals import refuse_config, refuse_read_only, refuse_run
from lightning_mmnas.commands.run import train_encoders
from lightning_mmnas.commands.stages import Stage
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import write_json
from tests.commands.runs import contents, make_run, stages_with
from tests.commands.test_run import _stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage, and a run in which it is finished."""
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(_stage("search")))
    stage = resolve(Stage("search", path), tmp_path / "run", 0)
    write_json(tmp_path / "run" / "manifest.json", make_manifest([stage], 0))
    record = {"seconds": 1.0, "digest": digest_of(stage.settings)}
    write_json(tmp_path / "run" / "search" / "done.json", record)
    return stage


def _fit(stage: Stage, run_dir: Path, *options: str) -> None:
    MMNASCLI([*stage.arguments(run_dir, 0), "--trainer.fast_dev_run", "true", *options])


def test_a_config_of_the_users_own_is_not_written_over(tmp_path: Path) -> None:
    refuse_config(tmp_path / "none")
    (tmp_path / "search.yaml").write_text("model: mine")  # beside which a training may be
    (tmp_path / "config.yaml").write_text("# lightning_mmnas==0.1.0\nmodel: mine\n")
    refuse_config(tmp_path)  # what an earlier training has written
    (tmp_path / "config.yaml").write_text("# mine\nmodel: mine\n")
    with pytest.raises(RunDirectoryError, match=r"config.yaml is no configuration that a training .* --run_dir"):
        refuse_config(tmp_path)


def test_fit_refuses_a_finished_stage_of_other_settings(tmp_path: Path, stage: Stage) -> None:
    run_dir = tmp_path / "run"
    before = contents(run_dir)
    with pytest.raises(RunDirectoryError, match=r"search is a finished stage, with other settings.*run-2.*--overwrite"):
        _fit(stage, run_dir, "--model.hidden", "5")
    with pytest.raises(RunDirectoryError, match=r"is the folder of a whole run.*--run_dir .*run-2"):
        _fit(stage, run_dir, "--trainer.default_root_dir", str(run_dir))
    elsewhere = ("--trainer.default_root_dir", str(run_dir / "search"))
    with pytest.raises(RunDirectoryError, match=r"a finished stage of another run: the configuration holds"):
        _fit(stage, tmp_path / "other", *elsewhere)
    (run_dir / "manifest.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="settings are unknown"):
        _fit(stage, run_dir)
    assert {k: v for k, v in contents(run_dir).items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }


@pytest.mark.slow
def test_fit_goes_on_where_it_is_meant(tmp_path: Path, stage: Stage) -> None:
    run_dir, own = tmp_path / "run", tmp_path / "own"
    MMNASCLI([*stage.arguments(run_dir, 0)])  # the same settings: the printed command
    last = run_dir / "search" / "checkpoints" / "last.ckpt"
    MMNASCLI([*stage.arguments(run_dir, 0), "--trainer.max_epochs", "4", "--ckpt_path", str(last)])
    _fit(stage, own, "--model.hidden", "5")
    _fit(stage, run_dir, "--trainer.default_root_dir", str(run_dir / "mine"), "--model.hidden", "5")


@pytest.mark.slow
def test_a_saved_configuration_follows_another_run_dir(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(_stage("search", folder="${shared.place}")))
    (tmp_path / "common.yaml").write_text("shared: {place: '${run_dir}/place'}")
    first, second = tmp_path / "first", tmp_path / "second"
    MMNASCLI(Stage("search", path).arguments(first, 3))
    saved = first / "search" / "config.yaml"
    config = yaml.safe_load(saved.read_text())
    assert saved.read_text().startswith("# lightning_mmnas==")
    assert config["trainer"]["default_root_dir"] == "${run_dir}/search"
    before = contents_of(first)
    cli = MMNASCLI(["fit", "--config", str(saved), "--run_dir", str(second)])
    assert cli.model.hparams["folder"] == str(second / "place")
    assert (second / "search" / "checkpoints" / "last.ckpt").is_file()
    assert contents_of(first) == before
    assert (second / "search" / "config.yaml").read_text() == saved.read_text().replace(str(first), str(second))


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "finetune" / "checkpoints").mkdir(parents=True)
    run = tmp_path / "run"
    refuse_read_only(run)
    refuse_read_only(tmp_path / "new")
    access = os.access  # permissions do not bind an administrator
    for name, mode in (("checkpoints", os.W_OK), ("finetune", os.X_OK)):
        monkeypatch.setattr(
            os, "access", lambda path, m, n=name, b=mode: (Path(path).name != n or not m & b) and access(path, m)
        )
        with pytest.raises(
            RunDirectoryError, match=rf"cannot write {run}/finetune.*: Permission denied; make it writable, or"
        ):
            refuse_read_only(run)
        with pytest.raises(RunDirectoryError, match="choose another --output"):
            claim(Claim("watch", run, 0), [], print)


def test_tabulate_refuses_the_folder_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run", stages_with())
    with pytest.raises(RunDirectoryError, match=r"is the folder of a run, not of a table.*run-2"):
        refuse_run(tmp_path / "run")
    refuse_run(tmp_path / "new")
    (tmp_path / "new" / "seed0").mkdir(parents=True)
    refuse_run(tmp_path / "new")
    (tmp_path / "new" / "search.yaml").write_text("")
    with pytest.raises(RunDirectoryError, match=r"new holds files but no table of mmnas.*--output .*new-2"):
        refuse_run(tmp_path / "new")
    (tmp_path / "new" / "card.json").write_text("{}")
    refuse_run(tmp_path / "new")


def test_features_are_renewed_where_stages_are_done_again(tmp_path: Path) -> None:
    content = _stage("search")
    folders = {"own": "${run_dir}/features", "shared": str(tmp_path / "features")}
    content["trainer"]["callbacks"] = [
        {"class_path": "FeatureCaching", "init_args": {"folder": folder}} for folder in folders.values()
    ]
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(content))
    found = {}
    for run_dir in (tmp_path / "first", tmp_path / "redone"):
        make_run(run_dir, stages_with(), finished=0)
        if run_dir.name == "redone":
            (run_dir / "previous").mkdir()
        cli = MMNASCLI(Stage("search", path).arguments(run_dir, 0)[1:], run=False)
        callbacks = [c for c in cli.trainer.callbacks if isinstance(c, FeatureCaching)]  # type: ignore[attr-defined]
        found[run_dir.name] = [callback.on_change for callback in callbacks]
    assert found == {"first": ["refuse", "refuse"], "redone": ["rebuild", "refuse"]}


def test_encoders_of_other_settings_are_not_overwritten(tmp_path: Path) -> None:
    for name in ("encoders", "search", "pretrain", "finetune"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(_stage(name)))
    write_json(tmp_path / "seed0" / "encoders" / "done.json", {"seconds": 1.0, "digest": "settings:other"})
    with pytest.raises(RunDirectoryError, match="holds encoders trained with other settings"):
        train_encoders(tmp_path, tmp_path / "seed0", seed=0)

"""Whose a run directory is: told before anything of it is changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from lightning_mmnas.commands.changes import read_manifest
from lightning_mmnas.commands.claiming import Claim, await_claim, claim
from lightning_mmnas.commands.stages import Stage
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import write_json, write_text
from tests.commands.runs import contents, make_run, stages_with


def _claim(
    run_dir: Path, stages: list[Stage], seed: int = 0, overwrite: bool = False, reuse: Path | None = None
) -> str:
    said: list[str] = []
    claim(Claim("watch", run_dir, seed, ("--a", "1"), overwrite, reuse), stages, said.append)
    return "\n".join(said)


def test_a_finished_run_of_other_settings_is_refused_untouched(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    make_run(run_dir, stages_with())
    before = contents(tmp_path)
    with pytest.raises(RunDirectoryError) as error:
        _claim(run_dir, stages_with(finetune=2))
    first, replacing, both = str(error.value).splitlines()
    assert "other settings of finetune (x 0 -> 2): finetune and comparison would be done again" in first
    assert f"mmnas run watch --overwrite --output {run_dir} --seed 0 --a 1" in replacing
    assert f"mmnas run watch --output {run_dir}-2 --reuse {run_dir} --seed 0 --a 1" in both
    with pytest.raises(RunDirectoryError, match="encoders, search, pretrain, finetune and comparison would") as error:
        _claim(run_dir, stages_with(encoders=2))
    assert "--reuse" not in str(error.value)  # nothing to take over
    assert contents(tmp_path) == before


def test_overwriting_redoes_the_changed_stage_and_those_after_it(tmp_path: Path) -> None:
    make_run(tmp_path, stages_with())
    assert "finetune and comparison again" in _claim(tmp_path, stages_with(finetune=2), overwrite=True)
    assert {p.name for p in (tmp_path / "previous").iterdir()} == {
        *("manifest.json", "finetune", "comparison", "features", "model", "results.json", "report.json"),
        *("analysis.json", "pictures"),
    }
    assert (tmp_path / "pretrain" / "done.json").is_file()
    _claim(tmp_path, stages_with(finetune=2))  # goes on without asking again
    assert _claim(tmp_path, stages_with()) == ""  # that of the earlier result, which is back
    assert not (tmp_path / "previous").exists()
    assert (tmp_path / "results.json").is_file()


def test_stages_that_have_not_begun_take_new_settings(tmp_path: Path) -> None:
    make_run(tmp_path, stages_with(), finished=2)
    write_text(tmp_path / "pretrain" / "config.yaml", "")  # failed before it trained anything
    _claim(tmp_path, stages_with(pretrain=2))
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest["settings"]["pretrain"] == {"x": 2}
    write_text(tmp_path / "pretrain" / "checkpoints" / "last.ckpt", "")
    with pytest.raises(RunDirectoryError, match="pretrain would be done again"):
        _claim(tmp_path, stages_with(pretrain=3))
    _claim(tmp_path, stages_with(pretrain=2, finetune=1))


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run-4", stages_with())
    for overwrite in (False, True):
        with pytest.raises(RunDirectoryError, match=r"its seed is 0, not 1.*--output \S*/run-5 --seed 1"):
            _claim(tmp_path / "run-4", stages_with(), seed=1, overwrite=overwrite)


def test_manifests_of_earlier_versions_are_compared_by_files_and_options(tmp_path: Path) -> None:
    stages = [replace(s, config=tmp_path / s.config) for s in stages_with()]
    for stage in stages:
        stage.config.write_text("a: 1")
    run_dir = tmp_path / "run"
    write_json(run_dir / "manifest.json", {"seed": 0, "stages": {s.name: s.digest(0) for s in stages}})
    for stage in stages:
        record = {"digest": stage.digest(0), "seconds": 1.0, "results": {}}
        write_json(run_dir / stage.name / "done.json", record)
    before = contents(run_dir)
    _claim(run_dir, stages)
    assert contents(run_dir) == before
    stages[3].config.write_text("a: 2")
    with pytest.raises(RunDirectoryError, match="other settings of finetune: finetune and comparison"):
        _claim(run_dir, stages)


def test_a_new_run_reuses_another(tmp_path: Path) -> None:
    make_run(tmp_path / "run", stages_with())
    with pytest.raises(RunDirectoryError, match="no finished stage"):
        _claim(tmp_path / "new", stages_with(encoders=1), reuse=tmp_path / "run")
    assert not (tmp_path / "new").exists()
    assert "encoders, search, pretrain" in _claim(tmp_path / "new", stages_with(finetune=1), reuse=tmp_path / "run")
    assert (tmp_path / "new" / "pretrain" / "done.json").is_file()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seed": "0", "stages": {}}'])
def test_a_damaged_manifest_is_reported(tmp_path: Path, text: str) -> None:
    make_run(tmp_path / "run", stages_with())
    (tmp_path / "run" / "manifest.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"cannot read .*manifest.json .*settings are unknown.*run-2"):
        _claim(tmp_path / "run", stages_with())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"digest": "a", "seconds": "1"}'])
def test_a_damaged_record_is_reported(tmp_path: Path, text: str) -> None:
    make_run(tmp_path, stages_with())
    (tmp_path / "search" / "done.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"cannot read .*done.json .*delete it.*stage search then goes on"):
        _claim(tmp_path, stages_with())


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29501"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "0"}


@pytest.mark.parametrize("launch", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_other_processes_wait_for_what_the_first_one_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: dict[str, str]
) -> None:
    """Else they would train what it takes for done, and wait for it for ever."""
    for name in {**TORCHRUN, **SRUN}:
        monkeypatch.delenv(name, raising=False)
    await_claim(tmp_path / "run", seconds=0)  # ranks that Lightning starts come later
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    make_run(tmp_path / "old", stages_with())
    slept: list[float] = []

    def first_process(seconds: float) -> None:
        slept.append(seconds)
        _claim(tmp_path / "run", stages_with(), reuse=tmp_path / "old")

    monkeypatch.setattr("time.sleep", first_process)
    for _ in range(2):
        await_claim(tmp_path / "run")
        assert (tmp_path / "run" / "finetune" / "done.json").is_file()
    assert len(slept) == 1
    with pytest.raises(RunDirectoryError, match="other settings"):  # torchrun may be known by the same again
        _claim(tmp_path / "run", stages_with(finetune=2))
    with pytest.raises(RunDirectoryError, match="the first process has not begun"):
        await_claim(tmp_path / "run", seconds=0)
    _claim(tmp_path / "run", stages_with())
    monkeypatch.setenv(list(launch)[1], "1")  # another start in the same folder
    with pytest.raises(RunDirectoryError, match=r"the first process has not begun .*all of them see"):
        await_claim(tmp_path / "run", seconds=0)

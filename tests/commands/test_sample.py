"""`mmnas sample` from end to end, on data that fit on one line."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_mmnas import Genotype
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.sampling import evaluators
from lightning_mmnas.sampling import record as written
from tests.sampling.toys import CONFIG

pytestmark = pytest.mark.slow  # the command line alone takes a second


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(CONFIG)
    return path


def sample(config: Path, output: Path, *options: str) -> int:
    """Keeps trials in a journal, which is quicker than SQLite where trials take milliseconds."""
    if "--storage" not in options:
        options = ("--storage", f"{output}.log", *options)
    return main(["sample", "--config", str(config), "--run_dir", "unused", "--output", str(output), *options])


def record(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "trials.json").read_text())
    return content


def trials(output: Path) -> list[tuple[Any, Any]]:
    return [(trial["genotype"], trial["values"]) for trial in record(output)["trials"]]


def test_trials_are_written_with_how_they_were_made(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    torch.manual_seed(5)
    before = torch.get_rng_state()
    options = ["--config", str(config), "--output", str(output), "--trials", "4", "--seed", "3"]
    assert main(["sample", "--run_dir", "unused", *options]) == 0
    assert (output / "study.db").is_file()
    assert torch.equal(torch.get_rng_state(), before)
    written = record(output)
    assert len(written["trials"]) == 4
    assert written["seed"] == 3
    assert written["versions"]["optuna"][0].isdigit()
    assert f"--output {output} --trials 4 --seed 3" in written["command"]
    assert written["facts"]["steps"] == 2
    assert written["facts"]["samples"] == {"weights": 16, "architecture": 16}
    values = [trial["values"]["criterion"] for trial in written["trials"]]
    best = min(range(4), key=lambda i: values[i])
    assert written["best"] == [best]
    kept = Genotype.load(output / "genotype.json")
    assert json.loads(kept.to_json()) == written["trials"][best]["genotype"]
    assert (output / "genotype.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((output / "trials.csv").read_text().splitlines()))
    assert [float(row["criterion"]) for row in rows] == values
    assert [Genotype.from_json(row["genotype"]).space for row in rows] == [kept.space] * 4
    said = capsys.readouterr().out
    assert "tpe over" in said
    assert f"4 trials in {output / 'trials.json'}" in said
    assert not (tmp_path / "unused").exists()


def test_continuing_gives_what_an_unbroken_command_gives(config: Path, tmp_path: Path) -> None:
    assert sample(config, tmp_path / "whole", "--trials", "6", "--sampler", "random") == 0
    for count in ("2", "6"):
        assert sample(config, tmp_path / "parts", "--trials", count, "--sampler", "random") == 0
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")
    assert sample(config, tmp_path / "other", "--trials", "6", "--sampler", "random", "--seed", "1") == 0
    assert trials(tmp_path / "other") != trials(tmp_path / "whole")


def test_views_that_are_not_kept_are_the_same_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--trials", "3", "--sampler", "random", "--model.init_args.dropout", "0.2")
    assert sample(config, tmp_path / "kept", *options) == 0
    monkeypatch.setattr(evaluators, "KEPT", 0)
    assert sample(config, tmp_path / "made", *options) == 0
    assert trials(tmp_path / "kept") == trials(tmp_path / "made")


def test_features_come_from_the_cache(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(CONFIG.replace("enabled: false", "enabled: true"))
    options = ("--run_dir", str(tmp_path / "run"), "--sampler", "random")
    assert sample(config, tmp_path / "whole", *options, "--trials", "4") == 0
    assert "MB to be written" in capsys.readouterr().err
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "features").rglob("*.npy")}
    monkeypatch.setattr(evaluators, "KEPT", 0)
    for count in ("2", "4"):
        assert sample(config, tmp_path / "parts", *options, "--trials", count) == 0
    assert times
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")
    assert record(tmp_path / "whole")["facts"]["features"]["views"] == 3


def test_brute_force(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model.init_args.cells", "1", "--sampler", "brute_force", "--steps", "1")
    assert sample(config, tmp_path, *options) == 0
    # One pair of inputs (one level of each sensor), two primitives.
    assert len(record(tmp_path)["trials"]) == 2
    assert "brute_force over 2 networks" in capsys.readouterr().out


def test_several_objectives_give_a_front(config: Path, tmp_path: Path) -> None:
    options = ("--objectives", "criterion", "flops", "--sampler", "nsga2", "--trials", "8", "--steps", "1")
    assert sample(config, tmp_path, *options) == 0
    written = record(tmp_path)
    values = {trial["number"]: tuple(trial["values"].values()) for trial in written["trials"]}
    front = [values[number] for number in written["best"]]
    assert front == sorted(front)
    assert set(front) == {
        v for v in values.values() if not any(o != v and o[0] <= v[0] and o[1] <= v[1] for o in values.values())
    }
    assert all(trial["measured"].keys() == {"criterion", "parameters", "flops"} for trial in written["trials"])
    files = sorted(path.name for path in tmp_path.glob("genotype*.json"))
    assert files == [f"genotypes_{i}.json" for i in range(len(front))]
    for i, number in enumerate(written["best"]):
        found = json.loads((tmp_path / f"genotypes_{i}.json").read_text())
        assert found == written["trials"][number]["genotype"]


def test_inherited_weights_come_from_one_supernet(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--evaluator", "inherited", "--supernet_steps", "3", "--sampler", "random")
    trained: list[int] = []
    train = evaluators.Evaluator.train

    def noted(self: Any, *rest: Any) -> None:
        trained.append(self.steps)
        train(self, *rest)

    monkeypatch.setattr(evaluators.Evaluator, "train", noted)
    assert sample(config, tmp_path, *options, "--trials", "3") == 0
    assert sample(config, tmp_path, *options, "--trials", "5") == 0
    assert trained == [3]
    assert len(record(tmp_path)["trials"]) == 5
    assert len({trial["values"]["criterion"] for trial in record(tmp_path)["trials"]}) > 1


def test_pruned_networks_never_win(config: Path, tmp_path: Path) -> None:
    options = ("--pruner", "median", "--steps", "5", "--trials", "16", "--sampler", "random")
    assert sample(config, tmp_path, *options) == 0
    written = record(tmp_path)
    stopped = [trial for trial in written["trials"] if trial["values"] is None]
    assert 0 < len(stopped) < 16
    assert all(trial["number"] not in written["best"] for trial in stopped)


def test_ctrl_c_keeps_what_is_done(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(config, tmp_path / "whole", "--trials", "5", "--sampler", "random") == 0
    call, calls = evaluators.TrainedAlone.__call__, 0

    def interrupted(self: Any, *rest: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return call(self, *rest)

    monkeypatch.setattr(evaluators.TrainedAlone, "__call__", interrupted)
    output = tmp_path / "out"
    assert sample(config, output, "--trials", "5", "--sampler", "random") == 2
    said = capsys.readouterr().err
    assert "interrupted after 2 trials, which are kept; the same command continues: mmnas sample --config" in said
    assert len(record(output)["trials"]) == 2
    assert (output / "genotype.json").is_file()
    assert sample(config, output, "--trials", "5", "--sampler", "random") == 0
    assert trials(output) == trials(tmp_path / "whole")


def test_a_killed_search_knows_its_folder_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As SIGKILL leaves it: nothing is written after the best genotype so far."""
    output, write = tmp_path / "out", written.write
    monkeypatch.setattr(written, "write", lambda *rest: None)
    assert sample(config, output, "--trials", "2", "--sampler", "random") == 0
    monkeypatch.setattr(written, "write", write)
    assert (output / "genotype.json").is_file()
    assert not record(output)["trials"]
    assert sample(config, output, "--trials", "3", "--sampler", "random") == 0
    assert len(record(output)["trials"]) == 3

    before = (output / "trials.json").read_bytes()
    (output / "trials.json").write_bytes(before[:99])
    assert sample(config, output, "--trials", "3") == 2
    assert f"delete {output / 'trials.json'} {output / 'genotype.json'} to have them" in capsys.readouterr().err
    for name in ("trials.json", "genotype.json"):
        (output / name).unlink()
    assert sample(config, output, "--trials", "3", "--sampler", "random") == 0
    assert json.loads(before)["trials"] == record(output)["trials"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler", "grid"], "--sampler 'grid' is not known; accepted: random, tpe, nsga2, brute_force"),
        (["--pruner", "often"], "--pruner 'often' is not known; accepted: none, median, hyperband"),
        (["--evaluator", "guess"], "--evaluator 'guess' is not known; accepted: train, inherited"),
        (["--objectives", "speed"], "--objectives 'speed' is not known; accepted: criterion, parameters, flops"),
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--trials", "many"], "argument --trials: invalid int value: 'many'"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967295, got -1"),
        (["--pruner", "median", "--evaluator", "inherited"], "networks are not trained"),
        (["--pruner", "median", "--objectives", "criterion", "parameters"], "stops trials by one objective"),
        (["--storage", "nonsense"], "'nonsense' is no storage; accepted: sqlite:///FILE.db"),
        (["--storage", "sqlite:////missing/study.db"], "unable to open database file"),
        (["--model.init_args.cels", "3"], "did you mean 'cells'?"),
        (["--data.init_args.architecture_fraction", "null"], "set data.init_args.architecture_fraction"),
        (
            ["--model.init_args.supervised", "true", "--data.init_args.labels", "true"],
            "networks are compared without labels; set model.init_args.supervised to false",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: list[str], message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(config, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").glob("*.json"))


def test_ranks_need_company(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank sum of one network alone says nothing: every trial would be worth the same."""
    content = yaml.safe_load(config.read_text())
    criteria = [{"class_path": "lightning_mmnas.objectives.criteria.ViewLoss"}]
    rank_sum = {"class_path": "lightning_mmnas.objectives.criteria.RankSum", "init_args": {"criteria": criteria}}
    selection = {"class_path": "GenotypeSelection", "init_args": {"output": "genotype.json", "criterion": rank_sum}}
    callbacks = [c for c in content["trainer"].get("callbacks") or [] if "Selection" not in c["class_path"]]
    content["trainer"]["callbacks"] = [*callbacks, selection]
    config.write_text(yaml.safe_dump(content))
    assert sample(config, tmp_path / "out", "--trials", "1") == 2
    assert "RankSum compares candidates with each other" in capsys.readouterr().err


def test_other_searches_are_not_overwritten(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, storage = tmp_path / "out", f"sqlite:///{tmp_path / 'shared.db'}"
    assert sample(config, output, "--trials", "2") == 0
    before = (output / "trials.json").read_text()
    assert sample(config, output, "--trials", "3", "--steps", "7") == 2
    assert "of another search (steps: 2 there, 7 here)" in capsys.readouterr().err
    assert sample(config, output, "--trials", "3", "--model.init_args.temperature", "0.5") == 2
    assert "(model.temperature: 0.2 there, 0.5 here)" in capsys.readouterr().err
    assert sample(config, output, "--trials", "3", "--steps", "7", "--storage", storage) == 2
    assert "holds the trials of another search; choose another --output" in capsys.readouterr().err
    assert (output / "trials.json").read_text() == before

    run = tmp_path / "run"
    run.mkdir()
    (run / "genotype.json").write_text("{}")
    assert sample(config, run, "--trials", "3") == 2
    assert "holds genotype.json of something else" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["genotype.json"]
    assert sample(config, config, "--trials", "3") == 2
    assert "it is a file; choose another --output" in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("lightning_mmnas.sampling", "lightning_mmnas.commands.sample"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert sample(config, tmp_path / "out") == 2
    assert "pip install 'lightning-mmnas[optuna]'" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sample", "--help"])
    assert ended.value.code == 0
    assert "--supernet_steps" in capsys.readouterr().out
    assert main(["sample"]) == 2
    assert "--output" in capsys.readouterr().err

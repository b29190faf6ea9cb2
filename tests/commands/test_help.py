"""Help: at once and without what is heavy or optional; near misses."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import lightning.pytorch  # noqa: F401  # its first import sets an environment variable: not within a test
import pytest
import yaml

from lightning_mmnas.commands.arguments import describe
from lightning_mmnas.commands.fit_help import render_help
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.parser import FIT_OPTIONS, Parser, path_hint
from lightning_mmnas.errors import ConfigError

LIGHTNING = ("fit", "validate", "test", "predict")
OWN = (
    *("cache", "cost", "data", "embed", "evaluate", "export", "init"),
    *("prepare", "report", "run", "sample", "show", "stream", "tabulate"),
)


def test_every_help_is_there_without_torch_and_without_extras() -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("optuna", "timm") else find(name, *rest)
from lightning_mmnas.commands.mmnas import main
for command in {(*LIGHTNING, *OWN)}:
    try:
        code = main([command, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0, command
assert main(["prepare", "avmnist"]) == 2
assert main(["fit", "--model", "FusionSearch", "--data=DigitsDataModule", "--trainer.logger", "CSVLogger", "-h"]) == 0
heavy = [name for name in ("torch", "lightning", "optuna", "matplotlib", "sklearn") if name in sys.modules]
assert not heavy, heavy
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stderr
    for command in (*LIGHTNING, *OWN):
        assert f"usage: mmnas {command} " in process.stdout
    assert "--model.cells (int, default 2)" in process.stdout
    assert "--data.batch_size (int, default " in process.stdout
    assert "--trainer.logger.save_dir (_PATH, required)" in process.stdout


def test_the_overview_names_what_there_is() -> None:
    from lightning.pytorch import Trainer

    text = render_help("fit", [])
    accepted = inspect.signature(Trainer).parameters
    named = re.findall(r"^  --trainer\.(\w+)", text, re.MULTILINE)
    assert len(named) > 8
    assert set(named) <= set(accepted)
    for name in ("FusionSearch", "FineTuning", "DigitsDataModule", "--config FILE", "--help_all"):
        assert name in text
    assert "weights are scored" in render_help("test", [])
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.slow
def test_the_known_options_are_those_of_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    text = capsys.readouterr().out
    assert "usage: mmnas [options] fit" in text
    for name in FIT_OPTIONS:
        assert f"--{name}" in text


def test_arguments_are_those_of_the_signature() -> None:
    from lightning_mmnas import FineTuning, FusionSearch, GenotypeSelection

    for described in (FusionSearch, FineTuning, GenotypeSelection):
        found = describe(described.__name__)
        parameters = list(inspect.signature(described).parameters.values())
        assert [argument.name for argument in found.arguments] == [p.name for p in parameters]
        required = [argument.default is None for argument in found.arguments]
        assert required == [p.default is inspect.Parameter.empty for p in parameters]
        assert all(argument.text for argument in found.arguments)
        assert found.summary


def test_arguments_of_a_class_of_ones_own_and_of_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_h2_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .models import Child\nraise RuntimeError('imported')\n")
    (package / "models.py").write_text(
        "from .base import Base\n\n\nclass Child(Base):\n    '''A child.'''\n\n\nclass Plain:\n    pass\n"
    )
    (package / "base.py").write_text(
        "class Base:\n    '''Base.\n\n    Args:\n        width: How wide,\n            in metres.\n"
        "        deep: How deep.\n\n    Raises:\n        ValueError: Never.\n    '''\n\n"
        "    def __init__(self, width: float, *, deep: bool = False, other=None): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = describe("my_h2_package.Child")
    assert found.summary == "A child."
    assert [(a.name, a.type, a.default, a.text) for a in found.arguments] == [
        ("width", "float", None, "How wide, in metres."),
        ("deep", "bool", "False", "How deep."),
        ("other", "", "None", ""),
    ]
    assert describe("my_h2_package.models.Plain").arguments == ()
    for name in ("my_h2_package.Nothing", "nothing_of_this_name.Child", "Nothing"):
        with pytest.raises(ConfigError, match="no source of a class"):
            describe(name)


def test_classes_and_values_come_from_the_files(tmp_path: Path) -> None:
    common, stage = tmp_path / "common.yaml", tmp_path / "search.yaml"
    common.write_text(yaml.safe_dump({"data": {"class_path": "DigitsDataModule"}}))
    stage.write_text(yaml.safe_dump({"model": {"class_path": "FusionSearch", "init_args": {"cells": 5}}}))
    text = render_help("fit", ["--config", str(common), f"--config={stage}"])
    assert "DigitsDataModule: " in text
    assert "--model.cells (int, default 2, here 5)" in text
    assert "from the data module" in text
    with pytest.raises(ConfigError, match="No such file"):
        render_help("fit", ["--config", str(tmp_path / "none.yaml")])
    stage.write_text("[")
    with pytest.raises(ConfigError, match="not valid YAML"):
        render_help("fit", ["--config", str(stage)])


def _message(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 2
    return capsys.readouterr().err


def test_a_file_without_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common, stage = tmp_path / "common.yaml", tmp_path / "search.yaml"
    common.touch()
    stage.touch()
    assert f"mmnas fit --config {common} --config {stage} --run_dir x" in _message(
        capsys, "fit", str(stage), "--run_dir", "x"
    )
    assert "takes options only, not 'search'" in _message(capsys, "test", "search")


def test_a_file_given_twice_or_before_the_one_that_names_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common, stage = tmp_path / "common.yaml", tmp_path / "stage.yaml"
    common.write_text("data: {class_path: WatchDataModule}")
    stage.write_text("trainer:\n  callbacks+:\n  - class_path: Timer\ndata: {init_args: {batch_size: 4}}")
    twice = _message(capsys, "fit", "--config", str(common), f"--config={stage}", "--config", str(stage))
    assert f"--config {stage} is given twice, and what it appends" in twice
    assert "data has init_args and no class_path so far: files count in their order" in _message(
        capsys, "fit", "--config", str(stage), "--config", str(common)
    )


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["run", "wtach", "--output", "x"], "did you mean watch?"),
        (["run", "watch", "--ouput", "x"], "there is no option --ouput; did you mean --output?"),
        (["run", "watch", "--output=x", "--sed", "3"], "did you mean --seed?"),
        (["run", "watch", "--output=x", "--serach.model.lr", "3"], "did you mean --search.model.lr?"),
        (["sample", "--smapler", "tpe"], "did you mean --sampler?"),
        (["sample", "--output", "x", "--sampler", "tpes"], "accepted: random, tpe"),
        (["fit", "--trainer.max_epoch", "3"], "did you mean 'max_epochs'?"),
        (["fit", "--trainr.max_epochs", "3"], "did you mean '--trainer.max_epochs'?"),
        (["fit", "--run_di", "x"], "did you mean '--run_dir'?"),
        (["fit", "--max_epochs", "3"], "did you mean '--trainer.max_epochs'?"),
        (["fit", "--batch_size", "3"], "did you mean '--data.init_args.batch_size'?"),
        (["fit"], "no model is given: --config FILE of a stage, or --model CLASS_PATH; see mmnas fit --help"),
    ],
)
def test_near_misses(args: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert hint in _message(capsys, *args)


@pytest.mark.parametrize(
    ("command", "target", "end"),
    [
        ("show", "gone", "moved; it is a link to gone, which is not there\n"),
        ("report", "moved", "moved' is a link that leads to itself\n"),
    ],
)
def test_links_that_lead_nowhere(
    command: str, target: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "moved"
    link.symlink_to(target)
    assert _message(capsys, command, str(link)).endswith(end)


def test_options_that_go_on_to_a_stage_are_left_alone() -> None:
    parser = Parser(prog="mmnas x", allow_abbrev=False)
    parser.add_argument("--seed")
    rest = ["--data.init_args.seed", "3", "--search.trainer.max_epochs", "1", "--my_own", "1"]
    assert parser.parse_known_args([*rest, "--seed", "2"])[1] == rest


def test_help_and_version_as_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words, beginning in ((["help"], "usage: mmnas COMMAND"), (["help", "cost"], "usage: mmnas cost")):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(beginning)
    for word in ("version", "-V"):
        assert main([word]) == 0
        assert capsys.readouterr().out.startswith("mmnas ")


def test_a_run_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "watch").mkdir()
    for words in (
        ["predict", str(tmp_path / "wacht"), "x.csv", "--output", "y.csv"],
        ["export", str(tmp_path / "wacht"), "--format", "onnx"],
        ["report", str(tmp_path / "wacht")],
    ):
        assert main(words) == 2
        assert f"there is no run {tmp_path / 'wacht'}; did you mean {tmp_path / 'watch'}?" in capsys.readouterr().err


def test_a_path_beside(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    assert path_hint(tmp_path / "wacht") == f"; did you mean {tmp_path / 'watch'}?"
    assert path_hint(tmp_path / "something") == ""
    assert path_hint(tmp_path / "none" / "watch") == ""


def test_names_of_samplers_are_those_of_the_search() -> None:
    samplers = pytest.importorskip("lightning_mmnas.sampling.samplers")
    from lightning_mmnas.commands.sample import PRUNERS, SAMPLERS

    assert get_args(samplers.SamplerName) == SAMPLERS
    assert get_args(samplers.PrunerName) == PRUNERS

"""Every command of README.md and docs/ is one that the command line takes: its options and classes exist.

Commands are read by the real parsers, and their configurations are resolved, but nothing is trained. The tests that
run every command for good are named in `RUN_BY`.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch  # noqa: F401  # its first import sets an environment variable: not within a test
import pytest

from lightning_mmnas.commands import mmnas
from lightning_mmnas.commands.compare import read_settings
from lightning_mmnas.commands.parser import FIT_OPTIONS, Parser
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import ORDER, find_configs, read_stages
from lightning_mmnas.errors import MMNASError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LIGHTNING = ("fit", "validate", "test", "predict")

RUN_BY = {
    "fit": "tests/commands/test_mmnas.py",
    "validate": "tests/commands/test_lightning_cli.py",
    "test": "tests/commands/test_lightning_cli.py",
    "predict": "tests/commands/test_apply.py",
    "cache": "tests/commands/test_cache.py",
    "cost": "tests/commands/test_cost.py",
    "prepare": "tests/data/avmnist/test_prepare.py",
    "data": "tests/commands/test_data.py",
    "embed": "tests/commands/test_apply.py",
    "evaluate": "tests/commands/test_apply.py",
    "export": "tests/delivery/test_export.py",
    "init": "tests/commands/test_init.py",
    "report": "tests/commands/test_report.py",
    "run": "tests/commands/test_run.py",
    "sample": "tests/commands/test_sample.py",
    "stream": "tests/commands/test_stream.py",
    "tabulate": "tests/commands/test_tabulate.py",
    "show": "tests/commands/test_mmnas.py",
}
"""Command: the tests that run it, with the options that the documentation shows or others."""

PLACEHOLDERS = {"CONFIGS": "watch", "CONFIG": "mmimdb", "DIR": "runs/x", "N": "1"}
"""What stands in the usage of a command, and what is read in its place."""


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of the blocks of a page, word by word; of blocks that show output, those behind a prompt."""
    for language, block in FENCE.findall(text):
        if language == "bash":
            lines = block.replace("\\\n", " ").splitlines()
        elif language in ("", "text"):
            lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        else:
            continue
        variables: dict[str, str] = {}
        for line in lines:
            yield from _split(line.strip(), variables)


def _split(line: str, variables: dict[str, str]) -> Iterator[list[str]]:
    assigned = re.fullmatch(r'(\w+)="(.*)"', line)
    if assigned:
        variables[assigned[1]] = assigned[2]
        return
    for name, value in variables.items():
        line = line.replace(f"${name}", value)
    if " [--" in line:  # the usage of a command
        line = line.replace(" [--", " --").replace("]", "")
        line = " ".join(PLACEHOLDERS.get(word, word) for word in line.split())
    found: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word in ("&&", "&", "|", ";"):
            if found:
                yield found
            found = []
        elif found or not re.fullmatch(r"[A-Z_]+=\S*", word):  # OMP_NUM_THREADS=1
            found.append(word)


def mmnas_words(words: list[str]) -> list[str] | None:
    """The words behind `mmnas`; None of another command."""
    if words[0] == "mmnas":
        return words[1:]
    return words[words.index("lightning_mmnas") + 1 :] if "lightning_mmnas" in words else None


def documented() -> dict[str, list[list[str]]]:
    """The commands of `mmnas` by page."""
    found = {path.name: [mmnas_words(words) for words in commands_of(path.read_text())] for path in PAGES}
    return {name: [words for words in commands if words] for name, commands in found.items() if any(commands)}


class BuiltError(Exception):
    """A command has built its parser."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def parser_of(command: str, *words: str) -> Parser:
    """The parser of a command's own options."""

    def stop(self: Parser, *_: Any) -> NoReturn:
        raise BuiltError(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_known_args", stop)
        patch.setenv("MMNAS_DEBUG", "1")
        with pytest.raises(BuiltError) as built:
            mmnas.main([command, *words])
    return built.value.parser


class Reader:
    """Reads commands as `mmnas` would; `wanted` are the configurations that they name, each with all its overrides."""

    def __init__(self) -> None:
        self.wanted: dict[tuple[str, ...], list[str]] = {}

    def read(self, words: list[str]) -> None:
        """Raises what `mmnas` would say of a command's own options; collects configurations and what overrides them."""
        command, rest = words[0], words[1:]
        if rest == ["--help_all"]:
            return  # Lightning's own, which takes seconds
        if "--help" in rest:
            assert mmnas.main(words) == 0
        elif command in ("cost", "cache") or (command in LIGHTNING and "--config" in rest):
            self.want(rest[1:] if command == "cost" else rest)
        elif command == "prepare":
            parser_of(command, rest[0]).parse_args(rest[1:])
        else:
            options, overrides = parser_of(command, *rest[:1]).parse_known_args(rest)
            if command in ("run", "tabulate", "data"):
                self.want_stages(vars(options).get("configs") or options.config, overrides)
            elif command == "sample":
                self.want(overrides)
            else:
                assert not overrides, f"mmnas {command} does not take {overrides}"

    def want(self, arguments: list[str]) -> None:
        """Notes the configuration of one stage, as arguments of `mmnas fit`; checkpoints need not be there."""
        files, overrides = [], []
        for option, value in zip(arguments[::2], arguments[1::2], strict=True):
            if option == "--config":
                files.append(value)
            elif option != "--ckpt_path":
                overrides += [option, value]
        self.wanted.setdefault(tuple(files), []).extend(overrides)

    def want_stages(self, configs: str, overrides: list[str]) -> None:
        """Notes the stages that options override: of those for all stages the search stands for the others."""
        folder = Path("configs", configs) if Path("configs", configs).is_dir() else find_configs(configs)
        for stage in read_stages(folder, overrides):
            if stage.name == "comparison":
                read_settings(stage.config, stage.overrides)
            elif stage.name == "search" or any(word.startswith(f"--{stage.name}.") for word in overrides):
                self.want([*config_options(stage.config), *stage.overrides])

    def resolve(self) -> None:
        """Resolves all configurations that were noted."""
        from lightning_mmnas.commands.lightning_cli import settings_of

        for files, overrides in self.wanted.items():
            try:
                assert settings_of(["fit", *(word for file in files for word in ("--config", file)), *overrides])
            except MMNASError as error:
                raise AssertionError(f"{files} with {overrides}: {error}") from error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the documentation's commands name."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "configs" / "table", tmp_path / "my_configs")
    for name in ("common.yaml", "search.yaml"):
        shutil.copy(ROOT / "configs" / "watch" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_commands_are_those_of_the_command_line(folder: Path) -> None:
    pages, reader = documented(), Reader()
    assert sum(map(len, pages.values())) > 50
    for page, commands in pages.items():
        for words in commands:
            try:
                reader.read(words)
            except (MMNASError, SystemExit, AssertionError, ValueError) as error:
                raise AssertionError(f"{page}: mmnas {shlex.join(words)}: {error}") from error
    assert len(reader.wanted) > 8
    reader.resolve()


def test_commands_with_a_mistake_are_noticed(folder: Path) -> None:
    for words, what in (
        (["run", "digits", "--output", "x", "--comparison.drawings", "1"], "drawings"),
        (["run", "--outputs", "x", "digits"], "--outputs"),
        (["predict", "RUN", "TABLE", "--outputs", "x.csv"], "--outputs"),
        (["export", "RUN", "--what", "nothing"], "--what"),
    ):
        with pytest.raises((MMNASError, AssertionError), match=what):
            Reader().read(words)
    reader = Reader()
    reader.read(["run", "digits", "--output", "x", "--search.trainer.max_epoch", "3"])
    with pytest.raises(AssertionError, match="max_epochs"):
        reader.resolve()


def test_every_command_is_documented_and_run_by_a_test() -> None:
    commands = {*mmnas._LIGHTNING, *mmnas._OWN}
    assert {words[0] for found in documented().values() for words in found} <= commands
    assert set(RUN_BY) == commands
    text = "\n".join(path.read_text() for path in PAGES)
    for command, path in RUN_BY.items():
        assert re.search(rf"mmnas {command}\b|`{command}`", text), f"mmnas {command} is on no page"
        source = (ROOT / path).read_text()
        assert re.search(rf"\"{command}\"|import.*\b{command}\b|\b_?{command}\(", source), f"{path} does not run it"


def options_of_all() -> set[str]:
    """Every option that some command takes, without what stands behind a dot."""
    own = [name for name in mmnas._OWN if name not in ("cost", "cache", "prepare")]
    parsers = [parser_of("predict", "RUN"), parser_of("prepare", "avmnist"), *map(parser_of, own)]
    options = {option for parser in parsers for option in parser._option_string_actions}
    scripts = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    options |= set(re.findall(r"add_argument\(\s*\"(--\w+)\"", scripts))
    # `--key value` speaks of any of them.
    return options | {f"--{name}" for name in (*FIT_OPTIONS, *ORDER, "help_all", "key")}


def test_options_in_the_text_exist() -> None:
    known = options_of_all()
    for path in PAGES:
        if path.name == "from_bmnas.md":  # has the options of BM-NAS
            continue
        text = FENCE.sub("", path.read_text())
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.startswith(
                (
                    "python ",
                    "OMP_NUM_THREADS",
                    "torchrun",
                    "pip ",
                    "srun ",
                    "#SBATCH ",
                    "--signal=",
                    "--kill-on-bad-exit",
                )
            ):
                continue
            for option in re.findall(r"(?<!\S)--[a-z_-]+", code):
                assert option in known, f"{path.name}: there is no option {option} in `{code}`"


def test_scripts_and_extras_of_commands_exist() -> None:
    extras = set(metadata("lightning-mmnas").get_all("Provides-Extra") or ())
    scripts = 0
    for path in PAGES:
        text = path.read_text()
        for name in re.findall(r"pip install '(?:\.|lightning-mmnas)\[([\w,]+)\]'", text):
            assert set(name.split(",")) <= extras, f"{path.name}: there are no extras {name}"
        inline = [shlex.split(code) for code in re.findall(r"`([^`\n]*python benchmarks/[^`]+)`", text)]
        for words in [*commands_of(text), *inline]:
            script = next((word for word in words if word.startswith("benchmarks/") and word.endswith(".py")), None)
            if script is None:
                continue
            source = (ROOT / script).read_text()
            for option in (word for word in words if word.startswith("--")):
                override = "parse_known_args" in source and option.startswith(("--data.", "--trainer."))
                assert override or f'"{option}"' in source, f"{path.name}: {script} has no option {option}"
            scripts += 1
    assert scripts > 5

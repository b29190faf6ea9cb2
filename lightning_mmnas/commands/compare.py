"""The last step of `mmnas run`: builds the comparison from the stages' own configurations and runs it."""

import difflib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import ValidationError

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.threads import is_small, one_thread
from lightning_mmnas.comparison.comparison import Comparison
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.spec import Split
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.parsing import parse_yaml, read_yaml
from lightning_mmnas.report.progress import RunProgress
from lightning_mmnas.space.value import describe_errors


def compare(
    pretrain: list[str],
    finetune: list[str],
    pretraining_steps: int,
    settings: ComparisonSettings,
    seed: int,
    progress: RunProgress,
) -> dict[str, Any]:
    """Runs the comparison of a finished run.

    Args:
        pretrain: Arguments of the pretraining stage, without the command ``fit``.
        finetune: Arguments of the fine-tuning stage, likewise.
        pretraining_steps: Weight steps that the found network had in its pretraining stage.
        settings: How much is compared.
        seed: Seed of random architectures, label draws and weights.
        progress: Where it is shown how far the comparison has come.

    Returns:
        ``{"comparison": rows}`` for ``results.json``; no rows where a stage is the user's own class.
    """
    with isolate_rng():
        comparison = build_comparison(pretrain, finetune, pretraining_steps, settings, seed)
        if comparison is None:
            progress.say(
                "no comparison: it knows how to pretrain and fine-tune FusionPretraining and FineTuning on a "
                "MultimodalDataModule only"
            )
            return {"comparison": []}
        with _few_threads(comparison), progress.activity("comparison", comparison.total, "steps", part=0) as shown:
            comparison.advance = shown.advance
            comparison.announce = lambda what: shown.update(what=what)
            return {"comparison": comparison.run()}


def build_comparison(
    pretrain: list[str], finetune: list[str], pretraining_steps: int, settings: ComparisonSettings, seed: int
) -> Comparison | None:
    """Builds the comparison of a finished run, its data read; None where a stage is the user's own class.

    Args:
        pretrain: See `compare`, as for all.
        finetune: Likewise.
        pretraining_steps: Likewise.
        settings: Likewise.
        seed: Likewise.
    """
    first = MMNASCLI(pretrain, run=False, save_config_callback=None)
    second = MMNASCLI(finetune, run=False, save_config_callback=None)
    if (
        not isinstance(first.model, FusionPretraining)
        or not isinstance(second.model, FineTuning)
        or not isinstance(first.datamodule, MultimodalDataModule)
        or not isinstance(second.datamodule, MultimodalDataModule)
    ):
        return None
    for stage in (first, second):
        stage.model.trainer = stage.trainer  # whose precision and hooks count
    second.datamodule.use_all_labels()  # the comparison draws label budgets itself
    first.datamodule.setup("fit")
    first.model.take_means(first.datamodule)
    second.datamodule.setup("fit")
    second.datamodule.setup("test")
    device = first.trainer.strategy.root_device
    read_features(first, ["train"], device)
    read_features(second, ["train", "val", "test"], device)
    return Comparison(
        pretraining=first.model,
        finetuning=second.model,
        unlabelled=first.datamodule,
        labelled=second.datamodule,
        pretraining_steps=pretraining_steps,
        settings=settings,
        seed=seed,
        accumulate=first.trainer.accumulate_grad_batches,
        device=device,
    )


def _few_threads(comparison: Comparison) -> AbstractContextManager[None]:
    """One thread where nothing large is computed: encoders are small, or their features are stored."""
    stored = comparison.labelled.part("train").stored_views > 0
    small = is_small(comparison.finetuning.encoders, comparison.labelled.modalities.values())
    return one_thread(comparison.device, stored or small)


def read_features(stage: MMNASCLI, splits: list[Split], device: torch.device) -> None:
    """Lets a stage's data come from its feature cache, where its configuration has one."""
    callbacks: list[Any] = stage.trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, FeatureCaching) and callback.enabled:
            callback.prepare(stage.model, stage.datamodule, splits, device)


def read_settings(path: Path, overrides: Sequence[str] = ()) -> ComparisonSettings:
    """Reads ``comparison.yaml``; without the file, the defaults.

    Args:
        path: The file.
        overrides: `--draws 1` or `--draws=1`, which beat the file.

    Raises:
        ConfigError: Not YAML, an unknown key or a wrong value.
    """
    content: Any = {}
    if path.is_file():
        content = read_yaml(path) or {}
    settings = _validated(content, f"{path}: ")
    given = _given(overrides)
    return _validated({**settings.model_dump(exclude_unset=True), **given}, "--comparison.") if given else settings


def _validated(content: Any, source: str) -> ComparisonSettings:
    known = list(ComparisonSettings.model_fields)
    for name in content if isinstance(content, dict) else ():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {known}"
            raise ConfigError(f"{source}{name}: unknown key; {hint}")
    try:
        return ComparisonSettings.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}{describe_errors(error)}") from None


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    """Options of the command line, each value read as YAML."""
    given: dict[str, Any] = {}
    words = iter(overrides)
    for word in words:
        name, equals, value = word.partition("=")
        text = value if equals else next(words, None)
        option = f"--comparison.{name.removeprefix('--')}"
        if not name.startswith("--") or text is None or (not equals and text.startswith("--")):
            raise ConfigError(f"{option} needs one value, such as --comparison.draws 1")
        given[name.removeprefix("--")] = parse_yaml(text, f"{option}: {text[:40]!r}")
    return given

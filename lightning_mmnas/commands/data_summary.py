"""The summary of `mmnas data`: the data module of a configuration, read once, and its views, drawn."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentParser, Namespace
from lightning import LightningDataModule
from rich.console import Console
from rich.progress import Progress
from torch import nn

from lightning_mmnas.commands.instantiation import instantiation_error
from lightning_mmnas.commands.lightning_cli import ConfigCheck
from lightning_mmnas.commands.shared import config_options, stage_files
from lightning_mmnas.commands.stages import STAGES, find_configs, refuse_table
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.spec import of_those_in_use
from lightning_mmnas.data.summary import SPLITS, summarise
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError
from lightning_mmnas.files import write_bytes, write_json
from lightning_mmnas.report.data_summary import plot_views, render_summary
from lightning_mmnas.views import DEFAULT_AUGMENTATIONS, TwoViews


def summarise_data(config: str, folder: str | None, samples: int, overrides: list[str]) -> None:
    """Prints what is in a data set and writes it, with a picture of a few samples.

    Args:
        config: A stage's configuration, a folder of them, or a shipped one.
        folder: Where to write; None: beside the run directory.
        samples: Samples in the picture.
        overrides: Options of `mmnas fit`.

    Raises:
        ConfigError: The configuration is wrong, or its data module is not a `MultimodalDataModule`.
        DamagedFilesError: Files are damaged or missing; everything else has been printed and written before.
        DataError: A split cannot be read; likewise.
    """
    console = Console()
    configs = stage_configs(config)
    if Path(config).is_file() and len(files := stage_files(configs[0])) > 1:
        console.print(f"{files[1]} with {files[0]} before it", highlight=False, markup=False, soft_wrap=True)
    parsed = {path: parse_config(path, overrides) for path in configs}
    # Of the stages, fine-tuning is the one that knows the labels.
    main = parsed[configs[-1]]
    data = build_data(main)
    views = _build_views(data, parsed)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        summary = summarise(data, lambda done: progress.advance(task, done))
    console.print(render_summary(summary), crop=False)

    output = Path(folder or f"{main.run_dir}-data")
    made_by = shlex.join(["mmnas", "data", config, *overrides])
    written = ["data.json"]
    write_json(output / "data.json", {**asdict(summary), "command": made_by, "versions": versions()})
    split = next((split for split in SPLITS if split in summary.splits), None)
    if split is not None and not summary.damaged:
        picture = BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # of texts in scripts that the font lacks
            plot_views(data, views, split, samples).savefig(picture, format="png", dpi=120)
        write_bytes(output / "samples.png", picture.getvalue())
        written.append("samples.png")
    console.print(f"written to {output}: {', '.join(written)}", markup=False, soft_wrap=True)
    if summary.damaged:
        raise DamagedFilesError(summary.damaged)
    if summary.missing:
        raise DataError("; ".join(summary.missing.values()))


def stage_configs(name: str) -> list[Path]:
    """The configuration itself, or those of a folder in the order of the stages."""
    refuse_table(name)
    if Path(name).is_file():
        return [Path(name)]
    folder = find_configs(name)
    found = [folder / f"{stage}.yaml" for stage in STAGES if (folder / f"{stage}.yaml").is_file()]
    if not found:
        raise ConfigError(f"{folder} has none of {[f'{stage}.yaml' for stage in STAGES]}")
    return found


def parse_config(path: Path, overrides: list[str]) -> Namespace:
    """The configuration of a stage, overrides applied; nothing of it is built."""
    return cast(Namespace, ConfigCheck(["fit", *config_options(path), *overrides]).config.fit)


def build_data(config: Namespace) -> MultimodalDataModule:
    """The data module of a configuration, with all labels.

    Raises:
        ConfigError: There is none, or it is no `MultimodalDataModule`.
    """
    if config.get("data") is None:
        raise ConfigError("the configuration has no data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    built = _instantiate(parser, {"data": config.data}).data
    if not isinstance(built, MultimodalDataModule):
        raise ConfigError(f"the data must be a MultimodalDataModule, not {type(built).__name__}")
    if built.task is not None:
        built.labels = True
        built.use_all_labels()
    built.prepare_data()
    return built


def _build_views(data: MultimodalDataModule, configs: dict[Path, Namespace]) -> TwoViews:
    """The augmentations of the first stage that names some, otherwise the defaults; without modality dropout."""
    given: Any = None
    for config in configs.values():
        given = given or config.get("model.init_args.augmentations")
    kinds = {str(spec.kind) for spec in data.modalities.values()}
    if given is None:
        augmentations = {k: make() for k, make in DEFAULT_AUGMENTATIONS.items() if k in kinds}
    else:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--augmentations", type=dict[str, nn.Module])
        augmentations = _instantiate(parser, {"augmentations": given}).augmentations
    return TwoViews(data.modalities, of_those_in_use(augmentations, data.modalities))


def _instantiate(parser: ArgumentParser, values: dict[str, Any]) -> Namespace:
    try:
        return cast(Namespace, parser.instantiate_classes(parser.parse_object(values)))
    except (ValueError, TypeError) as error:
        raise instantiation_error(error) from None

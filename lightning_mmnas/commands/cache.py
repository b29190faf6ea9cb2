"""`mmnas cache`: the feature cache of a stage, built alone."""

from typing import Any

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError

_HELP = """usage: mmnas cache [--config common.yaml] --config STAGE.yaml [options of mmnas fit]

Runs the frozen encoders of a stage once per sample and view and stores their features, as the
stage's callback FeatureCaching would when it starts; without such a callback, by its defaults in
the folder features of run_dir. The stage then finds the features there. An interrupted build is
continued by the same command."""


def command(args: list[str]) -> None:
    """Builds or checks the feature cache of a stage, given as the arguments of `mmnas fit`.

    Raises:
        ConfigError: The data are not a `MultimodalDataModule`.
        CacheError: The stored features were made from something else, or the disk is too small.
    """
    if not args or "-h" in args or "--help" in args:
        if not args:
            Parser(prog="mmnas cache").error(
                "give the configuration of a stage: --config common.yaml --config search.yaml"
            )
        print(_HELP)
        return
    from lightning_mmnas.callbacks.caching import FeatureCaching
    from lightning_mmnas.commands.lightning_cli import MMNASCLI
    from lightning_mmnas.data.base import MultimodalDataModule
    from lightning_mmnas.data.cache import megabytes

    cli = MMNASCLI(args, run=False, save_config_callback=None)
    data = cli.datamodule
    if not isinstance(data, MultimodalDataModule):
        raise ConfigError(f"a feature cache needs a MultimodalDataModule, not {type(data).__name__}")
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, FeatureCaching)]
    callback = found[0] if found else FeatureCaching(f"{cli.config.run_dir}/features")
    cli.model.trainer = cli.trainer  # which hooks may ask
    data.setup("fit")
    splits = callback.splits(cli.trainer, data)
    callback.prepare(cli.model, data, splits, cli.trainer.strategy.root_device)
    total = sum(path.stat().st_size for path in callback.folder.rglob("*.npy"))
    print(f"features of {', '.join(splits)} in {callback.folder}: {megabytes(total)}")

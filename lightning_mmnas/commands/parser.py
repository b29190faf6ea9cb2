"""The parser of a command's own options."""

import argparse
from typing import NoReturn

from lightning_mmnas.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A command's own options; a mistake in them is a `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise ConfigError(f"{message}; see {self.prog} --help")

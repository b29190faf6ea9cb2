"""The command line: one file per command of `mmnas`, named after it; `mmnas.py` tells which one runs."""

from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.parser import Parser

__all__ = ["Parser", "main"]

"""Errors that a user can cause and can mend: the CLI prints their message and exits with code 2."""

from typing_extensions import Self, override


class MMNASError(Exception):
    """A user's mistake; the message says what was given, what is accepted and what to do."""

    def at(self, place: str) -> Self:
        """The same error, its message begun with a place; not another one, since some are made of more than that."""
        self.args = (f"{place}: {self}",)
        return self


class Terminated(KeyboardInterrupt):
    """SIGTERM, as clusters send it before they kill: ends a command as Ctrl-C does, but with exit code 143."""


class DatasetNotFoundError(MMNASError, FileNotFoundError):
    """The files of a data set are not where they were looked for."""


class DataError(MMNASError, ValueError):
    """The data are there but cannot be used as asked: empty, one class only, unknown modality."""


class DamagedFilesError(DataError):
    """Files of a data set are missing or cannot be read.

    Args:
        files: Each file (or place in a file) and what is wrong with it.
    """

    NAMED = 10
    """Files that the message names; the others are counted."""

    def __init__(self, files: list[tuple[str, str]]) -> None:
        self.files = files
        named = "".join(f"\n  {source}: {reason}" for source, reason in files[: self.NAMED])
        more = f"\n  and {len(files) - self.NAMED} more" if len(files) > self.NAMED else ""
        super().__init__(
            f"{len(files)} damaged or missing file(s):{named}{more}\n"
            "mend them, or leave their samples out with data.init_args.on_error=skip"
        )

    def __reduce__(self) -> tuple[type["DamagedFilesError"], tuple[list[tuple[str, str]]]]:
        """Survives the way from a worker process of a loader."""
        return type(self), (self.files,)


class CacheError(MMNASError, ValueError):
    """A feature cache was made from something else, is damaged, or does not fit on the disk."""


class GenotypeError(MMNASError, ValueError):
    """A genotype or a search space is malformed, or the two do not fit each other."""


class CostError(MMNASError, ValueError):
    """A cost table is malformed or for another space, or no architecture keeps to a budget."""


class CheckpointError(MMNASError, ValueError):
    """A checkpoint belongs to another architecture or cannot be read."""


class TrainingError(MMNASError, ArithmeticError):
    """A training has come to weights that are no numbers."""


class ConfigError(MMNASError, ValueError):
    """A configuration has a wrong key, value or interpolation."""


class MissingExtraError(MMNASError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    @override
    def at(self, place: str) -> Self:
        self.msg = f"{place}: {self}"  # the text of an ImportError
        return self


class TableError(MMNASError, ValueError):
    """A table of a search space is missing, damaged, or has no such column."""


class RunDirectoryError(MMNASError, OSError):
    """A run directory cannot be written, or belongs to another configuration."""


class StudyError(MMNASError, ValueError):
    """A study of a search without gradients cannot be opened, or is one of another search."""


class ModelError(MMNASError, ValueError):
    """A delivered model is missing, damaged, of a newer version, or cannot be delivered or exported."""

"""Errors that a user can cause and can mend: the CLI prints their message and exits with code 2."""


class MMNASError(Exception):
    """A user's mistake; the message says what was given, what is accepted and what to do."""


class DatasetNotFoundError(MMNASError, FileNotFoundError):
    """The files of a data set are not where they were looked for."""


class DataError(MMNASError, ValueError):
    """The data are there but cannot be used as asked: empty, one class only, unknown modality."""


class GenotypeError(MMNASError, ValueError):
    """A genotype or a search space is malformed, or the two do not fit each other."""


class CheckpointError(MMNASError, ValueError):
    """A checkpoint belongs to another architecture or cannot be read."""


class ConfigError(MMNASError, ValueError):
    """A configuration has a wrong key, value or interpolation."""


class MissingExtraError(MMNASError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class RunDirectoryError(MMNASError, OSError):
    """A run directory cannot be written, or belongs to another configuration."""

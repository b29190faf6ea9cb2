"""Where shards lie: a folder, or a cloud's storage through LitData's clients and a folder that keeps what was read."""

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_mmnas.data.stream.index import INDEX
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError, MissingExtraError

SCHEMES = ("s3", "gs", "hf", "r2", "azure")
_KEPT = "~/.cache/lightning-mmnas/shards"


class ShardSource:
    """The files of a folder of shards, by their names in it.

    Files of a cloud's storage are downloaded when they are asked for, once per machine, into a folder of their own for
    each content of `stream.json`: shards that were written anew are never mixed with old ones.

    Args:
        location: A folder, or `s3://`, `gs://`, `hf://datasets/`, `r2://` or `azure://` and what follows.
        cache: Where downloads are kept; None: `~/.cache/lightning-mmnas/shards`.
        cache_bytes: Least recently read shards are deleted where all take more; None: never.
        storage_options: Passed on to the client, such as `endpoint_url`.

    Attributes:
        index: The content of `stream.json`.

    Raises:
        ConfigError: The location has another scheme.
        DatasetNotFoundError: There is no `stream.json`.
        DataError: It cannot be downloaded.
    """

    def __init__(
        self,
        location: str,
        cache: str | None = None,
        cache_bytes: int | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        scheme, separator, _ = location.partition("://")
        if separator and scheme not in SCHEMES:
            raise ConfigError(
                f"{location}: shards lie in a folder or at {', '.join(f'{name}://' for name in SCHEMES)}; check "
                "data.init_args.shards"
            )
        self.location = location.rstrip("/")
        self.remote = bool(separator)
        self.cache_bytes = cache_bytes
        self.storage_options = dict(storage_options or {})
        self._client: Any = None
        self._owner = 0
        if not self.remote:
            self.folder = Path(location)
            if not (self.folder / INDEX).is_file():
                raise DatasetNotFoundError(
                    f"there is no {INDEX} in {self.folder}: mmnas stream writes it last, when all shards are there; "
                    "check data.init_args.shards"
                )
            self.index = (self.folder / INDEX).read_bytes()
            return
        with tempfile.TemporaryDirectory() as folder:
            self._download(INDEX, Path(folder) / INDEX)
            self.index = (Path(folder) / INDEX).read_bytes()
        name = hashlib.blake2b(self.location.encode() + b"\n" + self.index, digest_size=12).hexdigest()
        self.folder = Path(cache or _KEPT).expanduser() / name

    def place(self, name: str) -> str:
        """What to call a file in messages."""
        return f"{self.location}/{name}"

    def fetch(self, name: str) -> tuple[Path, bool]:
        """A file, and whether it had to be downloaded.

        Raises:
            DatasetNotFoundError: The folder has no such file.
            DataError: It cannot be downloaded.
        """
        path = self.folder / name
        if not self.remote:
            if not path.is_file():
                raise DatasetNotFoundError(f"there is no file {path}; copy it, or write the shards again")
            return path, False
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # the time of the last use
            return path, False
        from filelock import FileLock

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.fetch"):  # the other processes of this machine wait for the one that downloads
                if path.is_file():
                    return path, False
                self._download(name, path)
                self._make_room(path)
        except OSError as error:
            raise DataError(f"cannot keep {self.place(name)} in {self.folder}: {error.strerror or error}") from error
        return path, True

    def forget(self, name: str) -> None:
        """Deletes a damaged download, for it to be downloaded again."""
        if self.remote:
            (self.folder / name).unlink(missing_ok=True)

    def _download(self, name: str, path: Path) -> None:
        try:
            from litdata.streaming.downloader import get_downloader
        except ImportError as error:
            raise MissingExtraError(
                "reading shards from a cloud's storage needs the package litdata; run: pip install "
                "'lightning-mmnas[stream]'"
            ) from error
        if self._client is None or self._owner != os.getpid():  # connections do not survive a fork
            self._client = get_downloader(self.location, str(path.parent), [], self.storage_options)
            self._owner = os.getpid()
        try:
            if self.location.startswith("hf://"):
                self._client.download_file(f"{self.location}/{name}", str(path))
            else:  # by the cloud's own client: obstore refuses plain http and does not survive a fork
                temporary = path.with_name(f".{path.name}.{os.getpid()}")
                try:
                    with temporary.open("wb") as file:
                        self._client.download_fileobj(f"{self.location}/{name}", file)
                    os.replace(temporary, path)
                finally:
                    temporary.unlink(missing_ok=True)
            if not path.is_file():
                raise FileNotFoundError("nothing was downloaded")
        except Exception as error:  # each cloud's client has its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
                raise  # it is this machine's disk
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            raise DataError(
                f"cannot read {self.place(name)}: {type(error).__name__}: {reason}; "
                "check data.init_args.shards, its storage_options, and the credentials in the environment"
            ) from error

    def _make_room(self, newest: Path) -> None:
        if self.cache_bytes is None:
            return
        found = []
        for path in self.folder.glob("*/chunk-*.bin"):
            with suppress(OSError):  # another process has just deleted it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.cache_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)  # who has it open still reads it
                total -= size

    def __getstate__(self) -> dict[str, Any]:
        """Leaves connections behind on the way to a worker process."""
        return {**self.__dict__, "_client": None}

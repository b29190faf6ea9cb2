"""Which columns name pictures, sounds, videos or arrays, by the names and the content of their files."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from lightning_mmnas.commands.init.sampling import spread
from lightning_mmnas.data.columns.arrays import is_array
from lightning_mmnas.data.columns.content import form_of
from lightning_mmnas.data.columns.images import image_info
from lightning_mmnas.data.columns.video import PICTURES
from lightning_mmnas.data.table.embedded import path_in
from lightning_mmnas.data.table.paths import exists, is_url, locate
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DamagedFilesError, DataError

Media = Literal["image", "audio", "video", "array"]

_NAMED: dict[Media, str] = {
    "image": ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif "
    ".jp2 .j2k .tga .ico",
    "audio": ".wav .wave .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .m4a .aac .au .snd .caf .w64 .wma .amr",
    "video": ".mp4 .m4v .avi .mov .mkv .webm .mpg .mpeg .wmv .flv .3gp .ogv .mts .m2ts",
    "array": ".npy .npz",
}
_SUFFIXES: dict[str, Media] = {suffix: media for media, named in _NAMED.items() for suffix in named.split(" ")}
_LONGEST = 4096
"""Characters of a path."""
_OPENED = 32
"""Pictures and folders that are opened to see whether they move."""
_NEAR = 40
"""Folders beside the table that are searched for files which are not where the table says."""
_PATH = re.compile(r"(~|\.{1,2}|[A-Za-z]:)?[\\/]?[^\\/:*?\"<>|\s][^\\/:*?\"<>|\n]*([\\/][^\\/:*?\"<>|\n]+)+")
_ABSOLUTE = re.compile(r"/|\\\\|[A-Za-z]:[\\/]")
"""Beginning of a path that is relative to no folder."""
_DATE = re.compile(r"[\d\s/\\]+")


@dataclass(frozen=True)
class Files:
    """The files of a column.

    Attributes:
        media: What most of them are.
        paths: Some of them, from all over the table; contents where the cells hold these.
        flat: Whether pictures are still; False: most of them move.
    """

    media: Media
    paths: list[Path | bytes] = field(default_factory=list)
    flat: bool = True


def find_files(table: Table, name: str, folder: Path) -> Files | str | None:
    """Looks at the files that a column names.

    Args:
        table: The table.
        name: The column.
        folder: What paths are relative to.

    Returns:
        The files; or why the files, which exist, are none that can be used; or None: the column names no files.

    Raises:
        DataError: The column looks as if it named files, and there are none, or they are on the web; says where the
            first one was looked for, and the way out.
    """
    rows = [(row, path_in(cell)) for row, cell in enumerate(table.cells(name)) if cell is not None]
    sample = spread(rows)
    if not sample:
        return None
    contents = [content for _, cell in sample if (content := _content(cell)) is not None]
    if len(contents) > len(sample) / 2:
        return _kinds(contents, f"the cells of column {name!r}")
    if sum(isinstance(cell, dict) and cell.get("array") is not None for _, cell in sample) > len(sample) / 2:
        return Files("audio")  # decoded, as `datasets.Audio` has them
    texts = [(row, cell) for row, cell in sample if isinstance(cell, str) and len(cell) <= _LONGEST]
    if len(texts) <= len(sample) / 2:
        return None
    if sum(is_url(cell) for _, cell in texts) > len(sample) / 2:
        row, cell = next((row, cell) for row, cell in texts if is_url(cell))
        raise DataError(
            f"{table.place(row, name)}: {cell.strip()!r} is an address on the web; files must lie on a disk: download "
            f"them and name the files in the table, or leave the column out: --without {name!r}"
        )
    named = [(row, cell, locate(folder, cell)) for row, cell in texts]
    there: list[Path | bytes] = [path for _, _, path in named if exists(path)]
    distinct = len({cell for _, cell in texts}) / len(texts)
    likely = [(row, cell) for row, cell, path in named if exists(path) or _looks_like_a_path(cell, distinct)]
    if not there and len(likely) > len(sample) / 2:
        every = [path for _, cell in rows if isinstance(cell, str) and exists(path := locate(folder, cell))]
        there = list(spread(every))
    if there and len(likely) > len(sample) / 2:
        return _kinds(there, "the files")
    folders = [path for _, cell, path in named if cell.strip() and _is_folder(path)]
    if len(folders) > len(sample) / 2:
        framed = [one for one in folders[:_OPENED] if any(file.suffix.lower() in PICTURES for file in one.iterdir())]
        if len(framed) > len(folders[:_OPENED]) / 2:
            return Files("video", list(folders), flat=False)
        return f"its cells name folders (first {folders[0]}) without pictures, the frames of a video"
    if len(likely) > len(sample) / 2:
        row, cell = likely[0]
        raise _missing(table, name, row, cell, folder, len(rows))
    if (row_cell := _without_suffix(texts, folder)) is not None:
        row, cell, found = row_cell
        raise DataError(
            f"{table.place(row, name)}: there is no file {locate(folder, cell)}, but {found}; write names with their "
            f"suffixes, or leave the column out: --without {name!r}"
        )
    return None


def media_of(source: Path | bytes) -> Media | None:
    """What a file is: by its suffix, and by its content where that says nothing."""
    if isinstance(source, Path) and (known := _SUFFIXES.get(source.suffix.lower())) is not None:
        return known
    return media_by_content(source)


def media_by_content(source: Path | bytes) -> Media | None:
    """What a file, or its content, is by its first bytes, or else by the library that would read it."""
    try:
        if is_array(source):
            return "array"
        form = form_of(source)
    except (DamagedFilesError, OSError):
        return None
    if form is not None and form.kind in ("image", "audio", "video"):
        return cast(Media, form.kind)
    return _streams(io.BytesIO(source) if isinstance(source, bytes) else str(source)) if form is None else None


def _kinds(sources: Sequence[Path | bytes], what: str) -> Files | str:
    found = [(media_of(source), source) for source in sources]
    counts = Counter(media for media, _ in found if media is not None)
    if not counts:
        first = next((str(source) for _, source in found if isinstance(source, Path)), "")
        exist = f"{what} exist, but are" if first else f"{what} are"
        return f"{exist} no picture, sound, video or array{f': first {first}' if first else ''}{_form(found[0][1])}"
    media = counts.most_common(1)[0][0]
    chosen = [source for one, source in found if one == media]
    moving = [_moves(source) for source in chosen[:_OPENED]] if media == "image" else []
    return Files(media, chosen, not moving or sum(moving) <= len(moving) / 2)


def is_media_name(text: str) -> bool:
    """Whether a text ends as the name of a picture, a sound, a video or an array does."""
    suffix = re.search(r"(\.\w{1,5})$", text.strip())
    return suffix is not None and suffix[1].lower() in _SUFFIXES


def _looks_like_a_path(cell: str, distinct: float) -> bool:
    text = cell.strip()
    if not text or "\n" in text or "\0" in text:
        return False
    if is_media_name(text):
        return True
    if _PATH.fullmatch(text) is None or _DATE.fullmatch(text) is not None:
        return False
    if text.startswith(("~", "./", "../", ".\\", "..\\", "/")) or text[1:3] in (":\\", ":/"):
        return True
    last = re.split(r"[\\/]", text)[-1]
    return distinct > 0.9 and (
        re.search(r"\.\w{1,5}$", last) is not None or (any(c.isdigit() for c in last) and " " not in text)
    )


def _missing(table: Table, name: str, row: int, cell: str, folder: Path, count: int) -> DataError:
    path = locate(folder, cell)
    written = cell.strip()
    if (near := _in_other_case(path)) is not None:
        way = f"there is {near}, whose case differs: write names as those of the files"
    elif _ABSOLUTE.match(written) is not None:
        way = f"they begin at a root, as on another computer: write them relative to {folder.absolute()}"
    else:
        elsewhere = _elsewhere(folder, cell)
        hint = f" (there is {elsewhere / written}: --files-from {elsewhere})" if elsewhere is not None else ""
        way = f"if they are relative to another folder: --files-from FOLDER{hint}"
    return DataError(
        f"{table.place(row, name)}: {written!r} looks like the path of a file, but there is no file {path}, nor any of "
        f"the {count} that the column names, relative to {folder.absolute()}; {way}; if the column is something else, "
        f"name it with --label or --modality, or leave it out: --without {name!r}"
    )


def _in_other_case(path: Path) -> Path | None:
    """The one file whose name differs from a path in upper and lower case."""
    try:
        found = [other for other in path.parent.iterdir() if other.name.casefold() == path.name.casefold()]
    except (OSError, ValueError):
        return None
    return found[0] if len(found) == 1 else None


def _elsewhere(folder: Path, cell: str) -> Path | None:
    """A folder nearby that the path of a cell is relative to."""
    absolute = folder.absolute()
    try:
        inner = sorted(path for path in absolute.iterdir() if path.is_dir())[:_NEAR]
        beside = sorted(path for path in absolute.parent.iterdir() if path.is_dir())[:_NEAR]
    except OSError:
        inner, beside = [], []
    for candidate in (*inner, *list(absolute.parents)[:3], Path.cwd(), *beside):
        if exists(locate(candidate, cell)):
            return candidate
    return None


def _without_suffix(texts: Sequence[tuple[int, str]], folder: Path) -> tuple[int, str, Path] | None:
    """The first cell, where files are named as all cells and a suffix more."""
    first: tuple[int, str, Path] | None = None
    for row, cell in texts[:5]:
        path = folder / cell.strip()
        if len(cell) > 200 or len(cell.split()) > 3 or not cell.strip() or "\0" in cell:
            return None
        found = next((p for suffix in _SUFFIXES if exists(p := path.with_name(f"{path.name}{suffix}"))), None)
        if found is None:
            return None
        first = first or (row, cell, found)
    return first


def _content(cell: Any) -> bytes | None:
    """The content of a file that a cell holds: bytes, or a mapping with bytes as Hugging Face's tables have them."""
    if isinstance(cell, dict) and "bytes" in cell:
        cell = cell["bytes"]
    return bytes(cell) if isinstance(cell, bytes | bytearray | memoryview) else None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _streams(source: Any) -> Media | None:
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(source) as container:
            return "video" if container.streams.video else "audio" if container.streams.audio else None
    except Exception:  # av raises what FFmpeg says
        return None


def _form(source: Path | bytes) -> str:
    try:
        form = form_of(source)
    except (DamagedFilesError, OSError):
        return ""
    return f" ({form.name})" if form is not None else ""


def _moves(source: Path | bytes) -> bool:
    """Whether a picture is a film: a GIF, PNG, WebP or AVIF of several frames."""
    if isinstance(source, Path) and source.suffix.lower() not in (".gif", ".apng", ".webp", ".png", ".avif", ""):
        return False
    try:
        info = image_info(source)
    except DamagedFilesError:  # named when every file is checked
        return False
    return info.format != "TIFF" and info.frames > 1

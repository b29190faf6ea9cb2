"""What a file is by its first bytes, whatever its name says."""

import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lightning_mmnas.data.columns.column import damaged
from lightning_mmnas.data.spec import Kind

Source = Path | bytes
"""A file, or its content."""

HEAD = 512
"""Bytes that `form_of` wants."""


class Form(NamedTuple):
    """What a file is.

    Attributes:
        name: Its format, for messages, with an article where it needs one.
        kind: What it would be as a modality; None: nothing that we read as a file of its own.
    """

    name: str
    kind: Kind | None


_STARTS: tuple[tuple[bytes, str, Kind | None], ...] = (
    (b"\xff\xd8\xff", "JPEG", "image"),
    (b"\x89PNG\r\n\x1a\n", "PNG", "image"),
    (b"GIF87a", "GIF", "image"),
    (b"GIF89a", "GIF", "image"),
    (b"II*\0", "TIFF", "image"),
    (b"MM\0*", "TIFF", "image"),
    (b"II+\0", "BigTIFF", "image"),
    (b"MM\0+", "BigTIFF", "image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", None),
    (b"\xff\x0a", "JPEG XL", None),
    (b"\xff\xfe", "UTF-16 text", None),  # MP3 begins with other bits of the second byte
    (b"\xfe\xff", "UTF-16 text", None),
    (b"8BPS", "a Photoshop file", None),
    (b"v/1\x01", "OpenEXR", None),
    (b"SIMPLE  =", "FITS", None),
    (b"%PDF", "PDF", None),
    (b"%!PS", "PostScript", None),
    (b"fLaC", "FLAC", "audio"),
    (b"RF64", "RF64", "audio"),
    (b"RIFX", "RIFX", "audio"),
    (b"riff\x2e\x91\xcf\x11", "Wave64", "audio"),
    (b"caff", "CAF", "audio"),
    (b".snd", "AU", "audio"),
    (b"ID3", "MP3", "audio"),
    (b"MThd", "MIDI, notes without sound", None),
    (b"#!AMR", "AMR", None),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF (WMA or WMV)", None),
    (b"\x1aE\xdf\xa3", "Matroska or WebM", "video"),
    (b"\0\0\x01\xba", "MPEG", "video"),
    (b"FLV\x01", "Flash video", "video"),
    (b"\x93NUMPY", "an array of NumPy (.npy)", None),
    (b"PK\x03\x04", "a ZIP archive (as .npz is)", None),
    (b"\x1f\x8b", "compressed by gzip", None),
    (b"\x89HDF\r\n", "HDF5", None),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull", None),
)
_BRANDS: dict[bytes, tuple[str, Kind | None]] = {
    b"avif": ("AVIF", "image"),
    b"avis": ("AVIF", "image"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), ("HEIC", None)),
    **dict.fromkeys((b"M4A ", b"M4B "), ("AAC in MP4 (.m4a)", None)),
    b"qt  ": ("QuickTime", "video"),
}
"""The first brand of an ISO media file; the others are MP4."""
_CHUNKED: dict[tuple[bytes, bytes], tuple[str, Kind | None]] = {
    (b"RIFF", b"WAVE"): ("WAV", "audio"),
    (b"RIFF", b"WEBP"): ("WebP", "image"),
    (b"RIFF", b"AVI "): ("AVI", "video"),
    (b"FORM", b"AIFF"): ("AIFF", "audio"),
    (b"FORM", b"AIFC"): ("AIFF", "audio"),
}


def open_source(source: Source) -> BinaryIO:
    """A binary stream of a file, or of its content.

    Raises:
        DamagedFilesError: There is no such file.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not source.is_file():
        raise damaged(source, "there is no such file")
    return open(source, "rb")


def source_name(source: Source, what: str) -> str:
    """What to call a source in messages: its path, or "`what` in memory"."""
    return f"{what} in memory" if isinstance(source, bytes) else str(source)


def form_of(source: Source) -> Form | None:
    r"""What a file is by its first bytes; None where they are not known.

    Examples:
        >>> form_of(b"RIFF\0\0\0\0WAVEfmt ")
        Form(name='WAV', kind='audio')
    """
    with open_source(source) as stream:
        head = stream.read(HEAD)
    for start, name, kind in _STARTS:
        if head.startswith(start):
            return Form(name, kind)
    chunked = _CHUNKED.get((head[:4], head[8:12]))
    if chunked is not None:
        return Form(*chunked)
    if head[4:8] == b"ftyp":
        return Form(*_BRANDS.get(head[8:12], ("MP4", "video")))
    if head[:4] == b"OggS":
        return Form("OGG with video", "video") if b"theora" in head else Form("OGG", "audio")
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return Form("BMP", "image")
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return Form("PPM", "image")
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08:
        # A frame of MPEG audio; layer 0 is AAC.
        return Form("AAC", None) if head[1] & 0x06 == 0 else Form("MP3", "audio")
    if head[128:132] == b"DICM":
        return Form("DICOM", None)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return Form("an HTML page", None)
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return Form("SVG, a drawing without pixels", None)
    if len(head) == HEAD and not any(head):
        return Form("zeros only, as downloads leave that were not finished", None)
    return None

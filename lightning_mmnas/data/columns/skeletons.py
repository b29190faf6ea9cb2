"""Skeletons: the text files of NTU RGB+D and arrays of joints, parsed once, brought to one length."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.arrays import Array, finite, open_array
from lightning_mmnas.data.columns.axes import arrange, way_out
from lightning_mmnas.data.columns.column import Column, damaged
from lightning_mmnas.data.columns.motion import resample_linearly
from lightning_mmnas.errors import ConfigError, DamagedFilesError
from lightning_mmnas.files import replacing

BODIES = 2
"""Bodies of a sample."""

NTU_JOINTS = 25

SPINE = 1
"""Number of the joint in the middle of the spine, among the 25 of Kinect v2."""

_BODY_FIELDS = 10
_JOINT_FIELDS = 12
_MAX_BODIES = 6
"""Bodies that a Kinect v2 follows at a time."""
_MAX_FRAMES = 100_000
_MAX_METRES = 100.0
"""Joints further from the camera than this come from damaged files; the sensor sees 8 m."""

_VERSION = 1
"""Of what is cached; another one is parsed anew."""

_Floats = np.ndarray[Any, np.dtype[np.float32]]


def parse_skeleton(path: Path) -> _Floats:
    """Parses a `.skeleton` text file of NTU RGB+D.

    A body is followed by its id, in whatever order the bodies of a frame are listed. Of more than two, the two that
    move most stay, the greatest motion first: the sum over x, y, z of the standard deviation over the joints and
    frames in which the body is seen, the rule of 2s-AGCN (Shi et al., CVPR 2019, `get_nonzero_std`).

    Returns:
        Joints in metres in the camera's frame, float32, shape (3, t, 25, bodies) with 0, 1 or 2 bodies; zeros in frames
        in which a body is not seen.

    Raises:
        DamagedFilesError: The file is empty, cut short, holds more than it should, or no numbers where they belong.
    """
    tokens = _tokens(path)
    frames = _count(path, tokens, 0, _MAX_FRAMES, "frames")
    if frames == 0:
        raise damaged(path, "it has no frame")
    place = 1
    size = _BODY_FIELDS + 1 + NTU_JOINTS * _JOINT_FIELDS
    seen: dict[str, list[tuple[int, int]]] = {}
    for frame in range(frames):
        bodies = _count(path, tokens, place, _MAX_BODIES, f"bodies of frame {frame + 1}")
        place += 1
        for _ in range(bodies):
            if place + size > len(tokens):
                raise damaged(path, f"it is cut short: it ends in frame {frame + 1} of {frames}")
            joints = tokens[place + _BODY_FIELDS]
            if joints != str(NTU_JOINTS):
                raise damaged(path, f"a body of frame {frame + 1} has {joints!r} joints instead of {NTU_JOINTS}")
            seen.setdefault(tokens[place], []).append((frame, place + _BODY_FIELDS + 1))
            place += size
    if place != len(tokens):
        raise damaged(path, f"{len(tokens) - place} numbers follow the last of {frames} frames")
    tracks = np.zeros((len(seen), 3, frames, NTU_JOINTS), dtype=np.float32)
    motions = np.zeros(len(seen))
    for body, moments in enumerate(seen.values()):
        for frame, start in moments:
            tracks[body, :, frame] = _joints(path, tokens[start : start + NTU_JOINTS * _JOINT_FIELDS], frame)
        present = tracks[body][:, [frame for frame, _ in moments]].astype(np.float64)
        motions[body] = present.std(axis=(1, 2)).sum()
    kept = np.argsort(-motions, kind="stable")[:BODIES]
    return np.ascontiguousarray(tracks[kept].transpose(1, 2, 3, 0))


def read_joints(path: Path) -> Array:
    """Reads a file of joints (t, joints, 2 or 3) or (t, joints, 2 or 3, bodies), as (3, t, joints, bodies).

    Raises:
        DamagedFilesError: It is no such array, or holds NaN or infinity.
    """
    return to_joints(open_array(path), path)


def to_joints(array: Array, path: Path | str, axes: str | None = None) -> Array:
    """An array of joints as (3, t, joints, bodies), float32 where that holds it as it is, else float64.

    Args:
        array: Its joints have three coordinates, or the two of a picture: the third is then zero.
        path: What messages call it.
        axes: See `arrange`; None: (t, joints, coordinates) or (t, joints, coordinates, bodies).

    Raises:
        DamagedFilesError: It is no such array, or holds NaN or infinity.
    """
    values = arrange(array, "skeleton", axes, path)
    if values.shape[2] not in (2, 3):
        found = f"an array of shape {array.shape} has {values.shape[2]} coordinates instead of 2 or 3"
        raise damaged(path, found + way_out(array, "skeleton", axes))
    values = finite(values, path)
    if values.ndim == 3:
        values = values[..., None]
    values = values.transpose(2, 0, 1, 3)
    if len(values) == 2:
        values = np.concatenate((values, np.zeros_like(values[:1])))
    return np.ascontiguousarray(values)


def prepare_skeleton(
    joints: Tensor, frames: int, centre: int | None = SPINE, bodies: int = BODIES, smooth: bool = False
) -> Tensor:
    """Brings a skeleton to the shape of a sample.

    A body that is not seen in a frame stands as in the frame before, or in its first one; a body that is never seen is
    zero. Then all bodies are moved so that one joint of the first body is at the origin in the first frame, and time is
    resampled linearly, the first and the last frame staying where they are. BM-NAS moves every frame on its own;
    we do not, so that walking remains a motion.

    Args:
        joints: Shape (3, t, joints, any number of bodies), t > 0; zeros where a body is not seen.
        frames: Length of the result.
        centre: The joint that goes to the origin; None: the mean of the joints.
        bodies: Bodies of the result; further ones are left out.
        smooth: Whether motion that is too fast for a shorter result is removed first; see `resample_linearly`.

    Returns:
        Shape (3, frames, joints, bodies), float32.
    """
    joints = joints[..., :bodies] if joints.is_floating_point() else joints[..., :bodies].float()
    t, present = joints.shape[1], (joints != 0).any(2).any(0)  # (t, bodies)
    moments = torch.arange(t).unsqueeze(1)
    latest = moments.where(present, -1).cummax(0).values
    first = torch.where(present.any(0), present.int().argmax(0), 0)
    filled = latest.where(latest >= 0, first)  # (t, bodies)
    joints = joints.gather(1, filled[None, :, None, :].expand_as(joints))
    if bool(present.any()):
        whole = int(present.any(0).int().argmax())
        pose = joints[:, 0, :, whole]
        origin = pose.mean(1) if centre is None else pose[:, centre]
        joints = torch.where(present.any(0), joints - origin.view(3, 1, 1, 1), joints)
    joints = joints.float()  # only now: places on a map differ little for their size
    signal = joints.transpose(1, 3)  # (3, bodies, joints, t)
    signal = resample_linearly(signal.reshape(-1, t), frames, smooth).view(*signal.shape[:3], frames)
    joints = signal.transpose(1, 3)
    missing = bodies - joints.shape[3]
    return torch.nn.functional.pad(joints, (0, missing)) if missing else joints.contiguous()


class SkeletonColumn(Column):
    """A modality of one skeleton file per sample: `.skeleton` text, or `.npy` arrays (see `read_joints`).

    A text file is parsed once: what was parsed is kept in `cache`, one `.npy` file each, under a name made of the
    file's path, size and time of change. Files of the cache are written under another name and renamed, so an
    interrupted build goes on where it was, and several processes may share it.

    Args:
        paths: The files.
        frames: Length of every sample.
        cache: Folder of what was parsed; None: text is parsed at every reading.
        joints: Joints of every sample.
        centre: See `prepare_skeleton`.
        bodies: Bodies of every sample.

    Raises:
        ConfigError: An argument cannot be.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        frames: int,
        cache: Path | None = None,
        joints: int = NTU_JOINTS,
        centre: int | None = SPINE,
        bodies: int = BODIES,
    ) -> None:
        if min(frames, joints, bodies) < 1 or (centre is not None and not 0 <= centre < joints):
            raise ConfigError(
                "a skeleton has at least one frame, joint and body, and its centre is one of the joints, "
                f"got frames={frames}, joints={joints}, bodies={bodies}, centre={centre}"
            )
        self.paths = list(paths)
        self.frames = frames
        self.cache = cache
        self.joints = joints
        self.centre = centre
        self.bodies = bodies

    def __len__(self) -> int:
        return len(self.paths)

    def parsed(self, index: int) -> _Floats:
        """One skeleton as it is in its file, shape (3, t, joints, bodies); the cache is read, or else written."""
        path = self.paths[index]
        if not path.is_file():
            raise damaged(path, "there is no such file")
        if path.suffix == ".npy":
            return read_joints(path)
        if self.cache is None:
            return parse_skeleton(path)
        key = hashlib.blake2b(f"{_VERSION} {self._key(path.resolve())}".encode(), digest_size=8).hexdigest()
        stored = self.cache / f"{path.stem}.{key}.npy"
        try:
            values: _Floats = np.array(open_array(stored), dtype=np.float32)
            if values.ndim == 4 and values.shape[0] == 3:
                return values
        except DamagedFilesError:  # not there yet, or damaged itself: written anew
            pass
        values = parse_skeleton(path)
        with replacing(stored) as temporary:
            np.save(temporary, values, allow_pickle=False)
        return values

    def read(self, index: int) -> Tensor:
        """Reads one sample, float32 of shape (3, frames, joints, bodies)."""
        values = self.parsed(index)
        if values.shape[3] == 0:
            raise damaged(self.paths[index], "no frame has a body")
        if values.shape[2] != self.joints:
            raise damaged(self.paths[index], f"it has {values.shape[2]} joints instead of {self.joints}")
        return prepare_skeleton(torch.from_numpy(values), self.frames, self.centre, self.bodies)

    def source(self, index: int) -> str:
        """The file."""
        return str(self.paths[index])

    def fingerprint(self, index: int) -> str:
        """Path, size and time of change of the file, and what `prepare_skeleton` is told."""
        path = self.paths[index]
        return f"{self._key(path)} {_VERSION} {self.centre}" if path.is_file() else f"{path} missing"

    def digest(self, index: int) -> str:
        """Hash of the file's bytes."""
        return hashlib.blake2b(self.paths[index].read_bytes(), digest_size=16).hexdigest()

    def _key(self, path: Path) -> str:
        status = path.stat()
        return f"{path} {status.st_size} {status.st_mtime_ns}"


def _tokens(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        tokens = content.decode("ascii").split()
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not text") from None
    if not tokens:
        raise damaged(path, "it is empty")
    return tokens


def _count(path: Path, tokens: list[str], place: int, largest: int, what: str) -> int:
    if place >= len(tokens):
        raise damaged(path, f"it is cut short: the number of {what} is missing")
    token = tokens[place]
    # int() also takes "1_0" and "+1".
    if not token.isdigit() or len(token) > 9 or int(token) > largest:
        raise damaged(path, f"the number of {what} is {token!r}, not a whole number up to {largest}")
    return int(token)


def _joints(path: Path, tokens: list[str], frame: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """x, y, z of the joints of one body, (3, 25); the other fields must be numbers too, but are not needed."""
    try:
        fields = np.array(tokens, dtype=np.float64).reshape(NTU_JOINTS, _JOINT_FIELDS)
    except ValueError as error:
        raise damaged(path, f"frame {frame + 1}: {error}") from None
    joints: np.ndarray[Any, np.dtype[np.float64]] = fields[:, :3].T
    if not np.isfinite(joints).all() or np.abs(joints).max() > _MAX_METRES:
        raise damaged(path, f"a joint of frame {frame + 1} is NaN or further away than {_MAX_METRES:g} m")
    return joints

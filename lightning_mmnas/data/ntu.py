"""NTU RGB+D: skeletons and videos of 60 actions of daily life."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import Column, ColumnSamples, OnError, usable_rows
from lightning_mmnas.data.columns.skeletons import BODIES, NTU_JOINTS, SkeletonColumn
from lightning_mmnas.data.columns.video import PresenceColumn, Sampling, check_clip, video_column, video_length
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError

Protocol = Literal["cross_subject", "cross_view"]
Check = Literal["files", "content"]

SUBJECTS: dict[Split, tuple[int, ...]] = {
    "train": (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
    "val": (2, 5, 9, 14),
    "test": (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40),
}
"""The official 20 training subjects, four of them for validation as in MFAS and BM-NAS, and the 20 of the test."""

_TEST_CAMERA = 1

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")

_SKELETONS = ("nturgb+d_skeletons", "nturgbd_skeletons")
_VIDEOS = ("nturgb+d_rgb", "nturgb+d_rgb_*", "nturgbd_rgb/avi_*", "nturgbd_rgb")
"""Folders, as the authors, BM-NAS and MFAS call them."""
_MISSING = ("NTU_RGBD_samples_with_missing_skeletons.txt", "samples_with_missing_skeletons.txt", "bad_skel.txt")

ACTIONS = (
    "drink water",
    "eat meal",
    "brush teeth",
    "brush hair",
    "drop",
    "pick up",
    "throw",
    "sit down",
    "stand up",
    "clapping",
    "reading",
    "writing",
    "tear up paper",
    "put on jacket",
    "take off jacket",
    "put on a shoe",
    "take off a shoe",
    "put on glasses",
    "take off glasses",
    "put on a hat or cap",
    "take off a hat or cap",
    "cheer up",
    "hand waving",
    "kicking something",
    "reach into pocket",
    "hopping",
    "jump up",
    "phone call",
    "play with phone or tablet",
    "type on a keyboard",
    "point to something",
    "taking a selfie",
    "check time (from watch)",
    "rub two hands",
    "nod head or bow",
    "shake head",
    "wipe face",
    "salute",
    "put palms together",
    "cross hands in front",
    "sneeze or cough",
    "staggering",
    "falling down",
    "headache",
    "chest pain",
    "back pain",
    "neck pain",
    "nausea or vomiting",
    "fan self",
    "punch or slap",
    "kicking",
    "pushing",
    "pat on back",
    "point finger",
    "hugging",
    "giving object",
    "touch pocket",
    "shaking hands",
    "walking towards",
    "walking apart",
)


class Name(NamedTuple):
    """What the name of a sample says, all from 1 on: `S001C002P003R002A013`."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int

    @classmethod
    def of(cls, text: str) -> "Name | None":
        """Reads the name at the beginning of a file's name; None where there is none."""
        found = _NAME.match(text)
        return None if found is None else cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"S{self.setup:03}C{self.camera:03}P{self.subject:03}R{self.repetition:03}A{self.action:03}"


def split_of(name: Name, protocol: Protocol) -> Split:
    """The split of a sample.

    "cross_subject": by `SUBJECTS`. "cross_view": camera 1 is for test, cameras 2 and 3 for training, as published; the
    authors have no validation part, here it is what cameras 2 and 3 saw of subjects 2, 5, 9 and 14.
    """
    if protocol == "cross_view":
        if name.camera == _TEST_CAMERA:
            return "test"
        return "val" if name.subject in SUBJECTS["val"] else "train"
    for split, subjects in SUBJECTS.items():
        if name.subject in subjects:
            return split
    raise DataError(f"{name} is of subject {name.subject}, who is none of the 40 of NTU RGB+D")


class NTUDataModule(MultimodalDataModule):
    """NTU RGB+D, 56,880 recordings of 40 subjects and 60 actions by three Kinects.

    A sample has "skeleton", float32 of shape (3, skeleton_frames, 25, 2): metres, at most two bodies, the middle of the
    first one's spine at the origin in the first frame (see `SkeletonColumn`), and "rgb", uint8 of shape
    (3, video_frames, h, w) (see `read_video`; extra `video`). `modalities: [skeleton]` needs no videos.

    `root` holds a folder of `.skeleton` files (`nturgb+d_skeletons` or `nturgbd_skeletons`) and one of videos
    (`nturgb+d_rgb`, `nturgb+d_rgb_256x256_30`, `nturgbd_rgb/avi_256x256_30`, or a like name); files belong together by
    their names `SsssCcccPpppRrrrAaaa`. Samples whose skeletons are missing are left out, as the authors ask: those
    named in their list (302 of them) if it lies in `root`, and in any case those in which no frame has a body. Actions
    above 60 (NTU RGB+D 120) are not read. Groups are performances, which three cameras saw.

    Source: A. Shahroudy et al., "NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis", CVPR 2016,
    arXiv:1604.02808. Licence: academic research only, on request from the ROSE Lab, Nanyang Technological University;
    no redistribution.

    Args:
        root: The folder.
        protocol: "cross_subject" or "cross_view"; see `split_of`.
        skeleton_frames: Length of a skeleton; 32 in HCN, MFAS and BM-NAS.
        video_frames: Frames of a clip; 8 in MFAS and BM-NAS.
        video_size: (h, w) of a frame in pixels.
        sampling: Frames of a clip; "random" holds for training, validation and test then take the centre. See
            `clip_positions`.
        skeleton_dir: Folder of the skeletons below `root`; None: as above.
        video_dir: Folder of the videos below `root`; None: as above.
        missing_list: File that names samples to leave out; None: the authors' or MFAS's list in `root`, if there.
        cache_dir: Where parsed skeletons are kept; None: `.mmnas` in `root`.
        check: What is read of every video when a split is built: "files" (that it is there and no shorter than its
            header says) or "content" (all of it, which takes hours for all videos). Skeletons are always read.
        on_error: Samples with damaged or missing files: "raise" names them, "skip" leaves them out with a warning.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`, the action.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling, of the architecture split and of random clips.

    Examples:
        >>> data = NTUDataModule("data/ntu", modalities=["skeleton"])
        >>> data.modalities["skeleton"].shape, data.num_classes
        ((3, 32, 25, 2), 60)
    """

    def __init__(
        self,
        root: str = "data/ntu",
        protocol: Protocol = "cross_subject",
        skeleton_frames: int = 32,
        video_frames: int = 8,
        video_size: tuple[int, int] = (112, 112),
        sampling: Sampling = "uniform",
        skeleton_dir: str | None = None,
        video_dir: str | None = None,
        missing_list: str | None = None,
        cache_dir: str | None = None,
        check: Check = "files",
        on_error: OnError = "raise",
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
    ) -> None:
        if protocol not in ("cross_subject", "cross_view"):
            raise ConfigError(
                f"protocol {protocol!r} is not in ['cross_subject', 'cross_view']; check data.init_args.protocol"
            )
        if skeleton_frames < 1:
            raise ConfigError(f"skeleton_frames must be at least 1, got {skeleton_frames}; check data.init_args")
        check_clip(video_frames, video_size, sampling=sampling)
        self.root = Path(root)
        self.protocol: Protocol = protocol
        self.skeleton_frames = skeleton_frames
        self.video_frames = video_frames
        self.video_size = (int(video_size[0]), int(video_size[1]))
        self.sampling: Sampling = sampling
        self.skeleton_dir = skeleton_dir
        self.video_dir = video_dir
        self.missing_list = missing_list
        self.cache_dir = self.root / ".mmnas" if cache_dir is None else Path(cache_dir)
        self.check: Check = check
        self.on_error: OnError = on_error
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
        )

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """Skeleton (3, t, 25, 2) and RGB video (3, t, h, w)."""
        return {
            "skeleton": ModalitySpec("skeleton", (3, self.skeleton_frames, NTU_JOINTS, BODIES)),
            "rgb": ModalitySpec("video", (3, self.video_frames, *self.video_size), torch.uint8),
        }

    @property
    def class_names(self) -> list[str]:
        """The 60 actions."""
        return list(ACTIONS)

    @property
    def task(self) -> Task:
        """One action per sample."""
        return "multiclass"

    def _samples(self, split: Split) -> ColumnSamples:
        folders = {name: self._folder(name) for name in self.modalities}
        files = {name: _files(folder, name) for name, folder in folders.items()}
        left_out = self._left_out() if "skeleton" in folders else set()
        names = sorted(set().union(*files.values()))
        performances = {
            p: i for i, p in enumerate(sorted({n._replace(camera=0) for n in names}))
        }  # in all splits alike
        names = [n for n in names if n not in left_out and split_of(n, self.protocol) == split]
        if not names:
            raise self._not_found(f"no file of the {split} split in {', '.join(map(str, folders.values()))}")
        paths = {name: [files[name].get(n, folders[name] / _file(n, name)) for n in names] for name in folders}
        if "skeleton" in paths:
            kept = self._with_bodies(SkeletonColumn(paths["skeleton"], self.skeleton_frames, self.cache_dir), split)
            names, paths = [names[i] for i in kept], {m: [p[i] for i in kept] for m, p in paths.items()}
        good = self._usable(self._columns(paths, split), split)
        names, paths = [names[i] for i in good], {m: [p[i] for i in good] for m, p in paths.items()}
        labels = torch.tensor([n.action - 1 for n in names], dtype=torch.long)
        groups = torch.tensor([performances[n._replace(camera=0)] for n in names], dtype=torch.long)
        return ColumnSamples(self._columns(paths, split), labels, groups)

    def _columns(self, paths: dict[str, list[Path]], split: Split) -> dict[str, Column]:
        sampling: Sampling = "centre" if self.sampling == "random" and split != "train" else self.sampling
        columns: dict[str, Column] = {}
        for name, listed in paths.items():
            if name == "skeleton":
                columns[name] = SkeletonColumn(listed, self.skeleton_frames, self.cache_dir)
            else:
                columns[name] = video_column(
                    listed, self.video_frames, self.video_size, sampling=sampling, seed=self.seed
                )
        return columns

    def _with_bodies(self, column: SkeletonColumn, split: Split) -> list[int]:
        """Parses all skeletons, and leaves out those without a body; damage is for later."""
        kept = []
        for i in range(len(column)):
            try:
                if column.parsed(i).shape[3] == 0:
                    continue
            except DamagedFilesError:
                pass
            kept.append(i)
        if len(kept) < len(column):
            rank_zero_info(f"{len(column) - len(kept)} samples of the {split} split have no skeleton and are left out")
        return kept

    def _usable(self, columns: dict[str, Column], split: Split) -> list[int]:
        checked: dict[str, Column] = dict(columns)
        if self.check == "files" and "rgb" in columns:
            column = columns["rgb"]
            checked["rgb"] = PresenceColumn(column, video_length)  # type: ignore[arg-type]  # a FileColumn
        found: list[int] = usable_rows(checked, self.on_error, split).tolist()
        return found

    def _folder(self, modality: str) -> Path:
        given = self.skeleton_dir if modality == "skeleton" else self.video_dir
        key = "skeleton_dir" if modality == "skeleton" else "video_dir"
        if given is not None:
            if not (self.root / given).is_dir():
                raise self._not_found(f"there is no folder {self.root / given}; check data.init_args.{key}")
            return self.root / given
        patterns = _SKELETONS if modality == "skeleton" else _VIDEOS
        found = {path for pattern in patterns for path in self.root.glob(pattern) if path.is_dir()}
        found = {path for path in found if not any(path in other.parents for other in found)}
        if not found:
            raise self._not_found(f"none of the folders {', '.join(patterns)} is in {self.root}")
        if len(found) > 1:
            raise ConfigError(
                f"{self.root} has several folders of {modality}: {', '.join(sorted(p.name for p in found))}; "
                f"name one in data.init_args.{key}"
            )
        return found.pop()

    def _left_out(self) -> set[Name]:
        """Samples in the list of missing skeletons."""
        if self.missing_list is not None:
            path = Path(self.missing_list)
            if not path.is_file():
                raise DatasetNotFoundError(f"there is no file {path}; check data.init_args.missing_list")
        else:
            found = [self.root / name for name in _MISSING if (self.root / name).is_file()]
            if not found:
                return set()
            path = found[0]
        lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
        names = {name for line in lines if (name := Name.of(line.strip())) is not None}
        if not names:
            raise DataError(f"{path} names no sample such as S001C002P005R002A008; check data.init_args.missing_list")
        return names

    def _not_found(self, reason: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"NTU RGB+D: {reason}. Request it at https://rose1.ntu.edu.sg/dataset/actionRecognition/ (academic "
            f"research only), and unpack the skeletons into {self.root / _SKELETONS[0]} and the videos into "
            f"{self.root / _VIDEOS[0]}; another root: data.init_args.root; without videos: data.init_args.modalities "
            "[skeleton]"
        )


def _files(folder: Path, modality: str) -> dict[Name, Path]:
    """The files of a modality by name, actions 1 to 60."""
    suffixes = (".skeleton",) if modality == "skeleton" else (".avi", ".mp4", ".mkv", ".webm", ".mov")
    found = {}
    for path in sorted(folder.iterdir()):
        name = Name.of(path.name)
        if name is not None and path.suffix in suffixes and 1 <= name.action <= len(ACTIONS):
            found[name] = path
    return found


def _file(name: Name, modality: str) -> str:
    """The official file name of a sample."""
    return f"{name}.skeleton" if modality == "skeleton" else f"{name}_rgb.avi"

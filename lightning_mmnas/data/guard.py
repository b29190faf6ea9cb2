"""What looks wrong with decoded samples: constants, few grey levels, silence, saturation, repetitions."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.samples import Samples, tensor_digest
from lightning_mmnas.data.spec import ModalitySpec, Split
from lightning_mmnas.errors import DamagedFilesError

COUNT = 64
"""Samples that are looked at."""

_LEVELS = 16
"""Of 256 grey levels: pictures within fewer were probably read with a wrong range."""
_TAIL = 0.01
"""Share of the darkest pixels, and of the brightest, that do not count for that."""
_SHARE = 0.05
"""Share of the samples from which something is worth a line."""
_SATURATED = 0.25
"""Share of the pixels or of the sound at the end of the range."""
_SILENT = 1e-4
"""Loudness below which a sound is silent, of 1."""


def look(sources: Sequence[Samples], modalities: Mapping[str, ModalitySpec], count: int = COUNT) -> list[str]:
    """Looks at some decoded samples, spread evenly over all.

    Args:
        sources: The samples, as of several splits.
        modalities: What is to be looked at.
        count: How many samples.

    Returns:
        What looks wrong, a line each, with the share of the samples that were looked at.
    """
    total = sum(map(len, sources))
    count = min(count, total)
    wanted = [i * total // count for i in range(count)]
    found: dict[str, list[Tensor]] = {name: [] for name in modalities}
    before = 0
    for source in sources:
        rows = [place - before for place in wanted if before <= place < before + len(source)]
        for name, values in found.items():
            values += _read(source, name, rows)
        before += len(source)
    return _remarks(found, modalities)


def look_at_data(data: MultimodalDataModule, splits: Sequence[Split], count: int = COUNT) -> list[str]:
    """As `look`, at splits that have been built."""
    return look([data.source(split) for split in splits], data.modalities, count)


def _read(samples: Samples, name: str, rows: Sequence[int]) -> list[Tensor]:
    found = []
    for row in rows:
        try:
            found.append(samples.select([name], torch.tensor([row]))[name][0])
        except DamagedFilesError:  # named when the split is checked
            continue
    return found


def _remarks(found: Mapping[str, Sequence[Tensor]], modalities: Mapping[str, ModalitySpec]) -> list[str]:
    lines = []
    for name, values in found.items():
        if not values:
            continue
        spec = modalities[name]
        if spec.kind in ("image", "video"):
            remarks = _pixels(values)
        elif spec.kind == "audio" and len(spec.shape) == 2:
            remarks = _sounds(values)
        elif spec.kind == "text":
            remarks = _texts(values, spec)
        else:
            remarks = _signals(values, spec)
        lines += [f"{name}: {remark}" for remark in [*remarks, *_repeated(values, spec)]]
    return lines


def _pixels(values: Sequence[Tensor]) -> list[str]:
    grey = [value if value.dtype == torch.uint8 else (value * 255).round() for value in values]
    constant = [bool((value == value.flatten()[0]).all()) for value in grey]
    flat = [_is_flat(value) for value in grey]
    white = [float((value == 255).float().mean()) > _SATURATED for value in grey]
    lines = [
        *_share(constant, "are of one colour; is their range or their transparency lost?"),
        *_share(flat, f"lie within {_LEVELS} of 256 grey levels; if their files hold more, set maximum"),
    ]
    if all(white) and not any(constant):  # some have a white ground; where all have, it may be the end of the range
        lines += _share(white, f"are white in more than {_SATURATED:.0%} of their pixels; is maximum too small?")
    return lines


def _is_flat(value: Tensor) -> bool:
    """Whether grey levels are few but several, also where a few pixels are extreme, as those of broken sensors."""
    counts = torch.bincount(value.flatten().long().clamp(0, 255), minlength=256)
    for tail in (0.0, _TAIL):
        levels = (counts.cumsum(0) > tail * counts.sum()) & (counts.flip(0).cumsum(0).flip(0) > tail * counts.sum())
        found = levels.nonzero().flatten()
        if 0 < int(found[-1] - found[0]) <= _LEVELS:
            return True
    return False


def _sounds(values: Sequence[Tensor]) -> list[str]:
    lines = _share([float(value.abs().max()) < _SILENT for value in values], "are silent")
    loud = [float((value.abs() > 0.999).float().mean()) for value in values]
    lines += _share([share > 0.01 for share in loud], "are at the end of the range in more than 1% of their length")
    flat = [float(value.abs().max()) >= _SILENT and bool((value == value.flatten()[0]).all()) for value in values]
    return lines + _share(flat, "are constant")


def _texts(values: Sequence[Tensor], spec: ModalitySpec) -> list[str]:
    if spec.vocabulary is None:
        return []
    pad, unknown = spec.vocabulary.pad, spec.vocabulary.unknown
    lines = _share([bool((value == pad).all()) for value in values], "are empty")
    words = [value[value != pad] for value in values]
    strange = [len(value) > 0 and float((value == unknown).float().mean()) > 0.5 for value in words]
    return lines + _share(strange, "have more words that are unknown than others")


def _signals(values: Sequence[Tensor], spec: ModalitySpec) -> list[str]:
    """Of motion, skeletons and numbers: whole channels and whole samples that never change."""
    stacked = torch.stack([value.float() for value in values])
    whole = stacked.flatten(2) if len(spec.shape) > 1 else stacked.unsqueeze(2)  # (samples, channels, the rest)
    lines = []
    if len(values) > 1:
        first = whole[:1, :, :1]
        still = (whole == first).all(2).all(0)
        if bool(still.any()):
            places = [str(i) for i in still.nonzero().flatten().tolist()]
            some = ", ".join(places[:5]) + (", ..." if len(places) > 5 else "")
            zero = "zero" if bool((whole[:, still] == 0).all()) else "the same number"
            lines.append(f"channel {some} of {whole.shape[1]} is {zero} in all of {len(values)} samples")
    if len(spec.shape) > 1 and spec.shape[1] > 1:  # (channels, time, ...)
        lines += _share([bool((value == value[:, :1]).all()) for value in values], "never change in time")
    return lines


def _repeated(values: Sequence[Tensor], spec: ModalitySpec) -> list[str]:
    if (spec.kind == "features" and spec.shape[0] < 4) or spec.kind == "text":
        return []  # few numbers and short texts repeat by chance
    counts = Counter(tensor_digest(value) for value in values)
    most = counts.most_common(1)[0][1]
    again = sum(count for count in counts.values() if count > 1)
    if len(values) < 2 or again / len(values) < _SHARE:
        return []
    return [f"{again} of {len(values)} samples are not the only ones with their content, {most} have the same"]


def _share(found: Sequence[bool], what: str) -> list[str]:
    count = sum(found)
    return [f"{count} of {len(found)} samples {what}"] if count and count >= _SHARE * len(found) else []

"""The configurations that `mmnas init` writes: sizes, budgets and encoders that fit the data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import yaml

from lightning_mmnas.commands.init.pretrained import ENCODERS as PRETRAINED
from lightning_mmnas.commands.shared import COMMON
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec

_TITLES = {
    "encoders": "Stage 0: one self-supervised encoder per modality.",
    "search": "Stage 1: search with NT-Xent in place of labels.",
    "pretrain": "Stage 2: self-supervised pretraining of the network that was found.",
    "finetune": "Stage 3: fine-tuning with labels.",
}
_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "audio": ("AudioEncoder", {"channels": [16, 32, 64]}),
    "features": ("FeatureEncoder", {"widths": [64, 64]}),
    "image": ("ImageEncoder", {"channels": [16, 32, 64]}),
    "motion": ("MotionEncoder", {"channels": [32, 64, 64]}),
    "skeleton": ("HCNEncoder", {}),
    "text": ("TextEncoder", {}),
    "video": ("VideoEncoder", {}),
}
_READ_BY_KIND: dict[Kind, tuple[str, ...]] = {
    "audio": ("rate", "seconds"),
    "features": ("files", "length", "axes", "key"),
    "image": ("size", "channels", "maximum", "clip", "axes", "key"),
    "motion": ("channels", "length", "fit", "axes", "key"),
    "skeleton": ("length", "joints", "axes", "key"),
    "text": ("length", "vocabulary", "tokenizer"),
    "video": ("size", "channels", "length", "maximum", "clip", "axes", "key"),
}
_ONLY_IF_GIVEN = ("fit", "maximum", "clip", "tokenizer", "axes", "key")
_TRAINER = """\
trainer:
  accelerator: auto
  logger:
    class_path: CSVLogger
    init_args: {save_dir: "${trainer.default_root_dir}", name: logs}
  callbacks:
    - class_path: ExactResume
    - class_path: LastCheckpoint # after every epoch and every 15 minutes
      init_args: {dirpath: "${trainer.default_root_dir}/checkpoints"}
"""
_BEST = """\
    - class_path: ModelCheckpoint # the epoch that is delivered
      init_args:
        dirpath: "${trainer.default_root_dir}/checkpoints"
        filename: best
        monitor: val/loss
        enable_version_counter: false
"""
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_/.-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
# Weight steps that a stage is worth on small data; epochs follow from them.
_STEPS = {"encoders": 400, "search": 200, "pretrain": 300, "finetune": 200}


@dataclass(frozen=True)
class Plan:
    """What the configurations depend on.

    Args:
        data: Arguments of the data module that all stages share.
        columns: The modalities.
        run_dir: Default run directory.
        train: Training rows.
        half: Training rows of the smaller part of the search.
        classes: Labelled training rows of each class; empty without labels.
        labelled: Labelled training rows.
        several: Whether a row may have several classes.
        seed: Seed of all stages.
        pretrained: Whether images and texts get encoders that come with their weights.
        regression: Whether labels are real numbers.
    """

    data: Mapping[str, Any]
    columns: Mapping[str, ColumnSpec]
    run_dir: str
    train: int
    half: int
    classes: Mapping[str, int]
    labelled: int
    several: bool
    seed: int
    pretrained: bool = False
    regression: bool = False

    @property
    def supervised(self) -> bool:
        """Whether there are labels."""
        return self.regression or bool(self.classes)

    @property
    def frozen(self) -> list[str]:
        """Modalities whose encoders come with their weights."""
        return [name for name, spec in self.columns.items() if self.pretrained and spec.kind in PRETRAINED]

    @property
    def encoders_stage(self) -> bool:
        """Whether there are encoders to train."""
        return len(self.frozen) < len(self.columns)

    @property
    def budgets(self) -> list[int | str]:
        """Label budgets that exist, for the comparison: per class, or of a regression in all."""
        if self.regression:
            return [*(budget for budget in (20, 100) if budget < self.labelled), "all"]
        if self.several:
            return ["all"]
        least = min(self.classes.values())
        few: list[int | str] = [budget for budget in (5, 20) if budget < least]
        return [*(few or ([least // 2] if least > 1 else [])), "all"]


def power_of_two(most: float, least: int, largest: int) -> int:
    """The largest power of two up to `most`, within bounds."""
    return min(largest, max(least, 1 << int(math.log2(max(1.0, most)))))


def write_configs(plan: Plan) -> dict[str, str]:
    """The files of a configuration folder: name and content; without labels no fine-tuning and no comparison."""
    first = ["encoders"] if plan.encoders_stage else []
    stages = [*first, "search", "pretrain", *(["finetune"] if plan.supervised else [])]
    files = {COMMON: _common(plan), **{f"{stage}.yaml": _stage(stage, plan) for stage in stages}}
    if plan.supervised:
        batch = power_of_two(plan.labelled / 2, 2, 128)
        files["comparison.yaml"] = (
            "# What the search gained: how much is compared (see ComparisonSettings).\n"
            f"{'labels_total' if plan.regression else 'labels_per_class'}: [{', '.join(map(str, plan.budgets))}]\n"
            "draws: 3\nrandom_architectures: 3\nsteps: 100\nsteps_all: 200\n"
            f"batch_size: {min(64, batch)}\nbatch_size_all: {batch}\n"
        )
    return files


def batch_sizes(plan: Plan) -> dict[str, int]:
    """Batch size of every stage."""
    # Two batches or more, unless too few negatives were left.
    whole = power_of_two(max(plan.train / 2, min(plan.train, 16)), 2, 256)
    half = power_of_two(max(plan.half / 2, min(plan.half, 16)), 2, 128)
    return {"encoders": whole, "search": half, "pretrain": whole, "finetune": power_of_two(plan.labelled / 2, 2, 64)}


def _common(plan: Plan) -> str:
    lines = ["# What the stages share; this file comes before each of theirs."]
    lines += [f"run_dir: {_quoted(plan.run_dir)}", f"seed_everything: {plan.seed}", "shared:", "  encoders:"]
    for name, spec in plan.columns.items():
        encoder, arguments = (PRETRAINED if name in plan.frozen else _ENCODERS)[spec.kind]
        arguments = arguments | ({"rate": spec.rate} if spec.kind == "audio" else {})
        inner = f", init_args: {_value(arguments)}" if arguments else ""
        lines.append(f"    {_quoted(name)}: {{class_path: {encoder}{inner}}}")
    weights = "${run_dir}/encoders/checkpoints/last.ckpt" if plan.encoders_stage else "null # they come with theirs"
    lines += [f"  encoder_weights: {weights}"]
    lines += ["  readout: branch # of the network that was found, in pretraining and fine-tuning"]
    lines += _TRAINER.splitlines()
    lines += ["data:", "  class_path: TableDataModule", "  init_args:"]
    lines += [f"    {name}: {_value(value)}" for name, value in plan.data.items()]
    lines += ["    columns:", *(f"      {_quoted(name)}: {_column(spec)}" for name, spec in plan.columns.items())]
    return "\n".join(lines) + "\n"


def _stage(stage: str, plan: Plan) -> str:
    size = batch_sizes(plan)[stage]
    steps = max(1, (plan.half if stage == "search" else plan.train) // size)
    if stage == "finetune":
        steps = max(1, plan.labelled // size)
    epochs = min(40, max(6, math.ceil(_STEPS[stage] / steps)))
    lines = [f"# {_TITLES[stage]}", "trainer:", f"  default_root_dir: ${{run_dir}}/{stage}", f"  max_epochs: {epochs}"]
    lines += [] if stage == "finetune" else ["  limit_val_batches: 0"]
    lines += ["  log_every_n_steps: 1" if steps < 50 else "  log_every_n_steps: 50"]
    if stage != "encoders":
        views = 4 if plan.frozen else 8  # of large features and slow encoders fewer
        cache = f'{{folder: "${{run_dir}}/features", views: {views}, dtype: float16}}'
        lines += ["  callbacks+:", "    - class_path: FeatureCaching", f"      init_args: {cache}"]
    if stage == "finetune":
        lines += _BEST.splitlines()
    if stage == "search":
        warm = f"warmup_epochs: {epochs // 3}"
        lines += ["    - class_path: ArchitectureAlternation"]
        lines += [f"      init_args: {{lr: 0.1, betas: [0.5, 0.999], weight_decay: 1.0e-3, {warm}}}"]
        lines += ["    - class_path: GenotypeSelection"]
        lines += ['      init_args: {output: "${run_dir}/genotype.json", num_candidates: 16, steps: 60}']
    lines += _model(stage, plan)
    own: dict[str, Any] = {"batch_size": size, "labels": stage == "finetune"}
    if stage == "search":
        own["architecture_fraction"] = 0.5
    lines += ["data:", f"  init_args: {_value(own)}"]
    return "\n".join(lines) + "\n"


def _model(stage: str, plan: Plan) -> list[str]:
    names = {"encoders": "EncoderPretraining", "search": "FusionSearch", "pretrain": "FusionPretraining"}
    lines = ["model:", f"  class_path: {names.get(stage, 'FineTuning')}", "  init_args:"]
    lines += ["    encoders: ${shared.encoders}"]
    if stage == "encoders":
        lines += [f"    frozen: {_value(plan.frozen)} # they come with their weights"] if plan.frozen else []
        return [*lines, "    temperature: 0.2", "    lr: 2.0e-3"]
    lines += ["    encoder_weights: ${shared.encoder_weights}"]
    if stage == "search":
        lines += ["    cells: 2", "    steps: 1", "    channels: 32", "    length: 8"]
        lines += ["    pairing: independent", "    readout: pool", "    modality_dropout: 0.5"]
        return [*lines, "    temperature: 0.2", "    lr: 3.0e-3"]
    found = ["    genotype: ${run_dir}/genotype.json", "    readout: ${shared.readout}"]
    if stage == "pretrain":
        return [*lines, *found, "    temperature: 0.2", "    lr: 3.0e-3"]
    lines += ["    network_weights: ${run_dir}/pretrain/checkpoints/last.ckpt", *found]
    return [*lines, "    mode: mixture", "    lr: 2.0e-3"]


def setting_names(kind: str) -> list[str]:
    """What can be said of how a kind is read."""
    return list(_READ_BY_KIND[cast(Kind, kind)])


def settings_of(spec: ColumnSpec) -> dict[str, Any]:
    """How a modality is read, less its kind, its columns and what stays as it is by default."""
    content, defaults = asdict(spec), {f.name: f.default for f in fields(ColumnSpec)}
    if spec.kind == "features" and not spec.files:  # numbers in cells
        return {}
    names = [n for n in _READ_BY_KIND[spec.kind] if n not in _ONLY_IF_GIVEN or content[n] != defaults[n]]
    return {name: list(content[name]) if isinstance(content[name], tuple) else content[name] for name in names}


def _column(spec: ColumnSpec) -> str:
    return _value({"kind": spec.kind, "columns": spec.columns, **settings_of(spec)})


def _value(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """Text as YAML: bare where nothing can be read into it, else quoted; `${` must not be taken for interpolation."""
    if _BARE.fullmatch(text) and text.lower() not in _WORDS:
        return text
    escaped = re.sub(r"(\\*)\$\{", lambda found: f"{2 * found[1]}\\${{", text)
    return str(yaml.safe_dump(escaped, default_style='"', allow_unicode=True, width=math.inf)).rstrip("\n")

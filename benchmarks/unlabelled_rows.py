"""Can films without labels help logistic regression on frozen features? One idea at a time.

    python benchmarks/unlabelled_rows.py films --features runs/unlabelled --data.init_args.root data/mmimdb_mini

No run is needed: features are those of the search stage's frozen encoders, of the training and the validation split;
the test split is not looked at. They are kept in `--features`. Printed is the weighted F1 with thresholds tuned on one
half of the validation split and scored on the other, mean over label draws, and the same less that of logistic
regression, with the standard deviation of the difference over draws.

    principal axes        the first 128 axes of all training films in place of the features
    canonical axes        64 axes on which posters and plots of all training films agree, beside the features
    self-training         the classifier's decisions on films without labels are their labels, in the shares of the
                          labels; on all of them, or on the half whose decisions are clearest
    propagation           half of a film's logits from its ten nearest training films
    adapted               the language model's last block trained on the training films by NT-Xent, beside the features:
                          between two dropout masks of a plot (as SimCSE), or between plot and poster
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from last_stage import score
from lightly.models.modules import SimCLRProjectionHead
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.stages import find_configs, read_stages
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.splits import label_fraction
from lightning_mmnas.encoders.text import TransformersEncoder
from lightning_mmnas.fusion.readout import LateFeatures
from lightning_mmnas.objectives.linear import LinearModel
from lightning_mmnas.objectives.logistic import choose_logistic, fit_logistic
from lightning_mmnas.objectives.losses import nt_xent

FRACTIONS = (0.01, 0.05, 0.2, 1.0)
SPLITS: tuple[Split, ...] = ("train", "val")
EPOCHS, BATCH = 3, 128
Parts = dict[str, dict[str, Tensor]]


class _Scored:
    """What `score` wants of a comparison."""

    metric = "f1_weighted_tuned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="a folder of configurations of texts and pictures, or a shipped one")
    parser.add_argument("--features", type=Path, required=True, help="folder of the features; made if missing")
    parser.add_argument("--draws", type=int, default=5, help="label draws of each share below all (default: 5)")
    options, overrides = parser.parse_known_args()
    stage = {stage.name: stage for stage in read_stages(find_configs(options.configs), overrides)}["search"]
    arguments = [*stage.arguments(options.features, 0)[1:], "--data.init_args.labels", "true"]
    cli: Any = MMNASCLI(arguments, run=False, save_config_callback=None)
    parts = read_parts(cli, options.features / "features.safetensors")
    for name in ("two masks", "poster"):
        path = options.features / f"adapted {name}.safetensors"
        if not path.is_file():
            start = time.process_time()
            save_file(adapt(cli, parts, name), path)
            print(f"adapted, {name}: {time.process_time() - start:.0f} CPU s", flush=True)
        for split, value in load_file(path).items():
            parts[split][f"adapted, {name}"] = value
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for fraction in FRACTIONS:
        for draw in range(options.draws if fraction < 1 else 1):
            for row, value in rows(parts, fraction, draw):
                found[row, fraction].append(value)
        print(f"{fraction:g} of the labels: done", flush=True)
    report(found)


def read_parts(cli: Any, path: Path) -> Parts:
    """Per split: `x`, the pooled features (n, d); `text` and `image`, those of one modality; `ids`; `labels`."""
    if not path.is_file():
        found: dict[str, Tensor] = {}
        data, encoders = cli.datamodule, cli.model.encoders.eval()
        data.setup("fit")
        shapes = encoders.feature_shapes
        for split in SPLITS:
            batches: dict[str, list[Tensor]] = defaultdict(list)
            for batch in data.plain_loader(split):
                with torch.no_grad():
                    features = encoders(batch)
                for modality in ("image", "text"):
                    names = [name for name in features if name.startswith(f"{modality}/")]
                    batches[modality].append(LateFeatures(names, shapes)(features))
                batches["ids"].append(batch["text"])
                batches["labels"].append(batch["label"])
            found |= {f"{split}/{name}": torch.cat(value) for name, value in batches.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, path)
    content = load_file(path)
    parts = {split: {n.split("/")[1]: v for n, v in content.items() if n.startswith(f"{split}/")} for split in SPLITS}
    for part in parts.values():
        part["x"] = torch.cat([part["image"], part["text"]], 1)
    return parts


def adapt(cli: Any, parts: Parts, positive: str) -> dict[str, Tensor]:
    """Trains the last block of the language model without labels; mean and maximum of its words by split, (n, 2 d).

    Args:
        cli: The search stage.
        parts: See `read_parts`.
        positive: What is to agree with a plot: "two masks", itself through another dropout mask, or "poster".
    """
    encoder = next(m for m in cli.model.encoders.modules() if isinstance(m, TransformersEncoder))
    model = cast(Any, encoder.model)
    torch.manual_seed(0)
    last = model.encoder.layer[-1]
    kept = {name: value.clone() for name, value in last.state_dict().items()}
    states = {split: _before_last(model, part["ids"], encoder.vocabulary.pad) for split, part in parts.items()}
    image = F.normalize(_standard(parts["train"]["image"], parts["train"]["image"]))
    heads = nn.ModuleList([SimCLRProjectionHead(768, 256, 128), SimCLRProjectionHead(image.shape[1], 256, 128)])
    last.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        [{"params": list(last.parameters()), "lr": 2e-5}, {"params": list(heads.parameters()), "lr": 1e-3}]
    )
    hidden, words = states["train"]
    for _ in range(EPOCHS):
        for rows_ in torch.randperm(len(hidden))[: len(hidden) // BATCH * BATCH].split(BATCH):
            first = heads[0](_pooled(last, hidden[rows_], words[rows_]))
            if positive == "poster":
                second = heads[1](image[rows_])
            else:
                second = heads[0](_pooled(last, hidden[rows_], words[rows_]))
            loss = nt_xent(0.1)(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    last.requires_grad_(False).eval()
    with torch.no_grad():
        found = {
            split: torch.cat([_pooled(last, h, w) for h, w in zip(*(t.split(BATCH) for t in state), strict=True)])
            for split, state in states.items()
        }
    last.load_state_dict(kept)
    return found


def _before_last(model: Any, ids: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """What the last block is given, (n, t, d), and which of it are words, (n, t)."""
    words, hidden = ids != pad, []
    words[:, 0] = True
    with torch.no_grad():
        for i, w in zip(ids.split(BATCH), words.split(BATCH), strict=True):
            states = model(input_ids=i, attention_mask=w.long(), output_hidden_states=True).hidden_states
            hidden.append(states[-2])
    return torch.cat(hidden), words


def _pooled(block: nn.Module, hidden: Tensor, words: Tensor) -> Tensor:
    mask = torch.zeros(words.shape, dtype=hidden.dtype).masked_fill(~words, torch.finfo(hidden.dtype).min)
    out = block(hidden, mask[:, None, None, :])
    out = out[0] if isinstance(out, tuple) else out
    shown = words.unsqueeze(2)
    mean = (out * shown).sum(1) / shown.sum(1)
    return torch.cat([mean, out.masked_fill(~shown, -torch.inf).amax(1)], 1)


def rows(parts: Parts, fraction: float, draw: int) -> Iterator[tuple[str, float]]:
    """Every row's score with some of the labels."""
    train, val = parts["train"], parts["val"]
    chosen = label_fraction(train["labels"], fraction, draw)
    labels, classes = train["labels"][chosen], train["labels"].shape[1]

    def scored(logits: Tensor) -> float:
        return score(cast(Any, _Scored), logits.float(), val["labels"])

    def fitted(x: Tensor) -> LinearModel:
        return choose_logistic(x[chosen], labels, classes, None, draw)

    plain = fitted(train["x"])
    yield "logistic regression", scored(plain(val["x"]))
    for name in (name for name in train if name.startswith("adapted")):
        both = {split: torch.cat([part["x"], part[name]], 1) for split, part in parts.items()}
        yield name, scored(fitted(both["train"])(both["val"]))
    axes = _principal(train["x"], 128)
    own = {split: _standard(part["x"], train["x"]) @ axes for split, part in parts.items()}
    yield "principal axes", scored(fitted(own["train"])(own["val"]))
    agreed = _canonical(train, val, 64)
    yield "canonical axes", scored(fitted(agreed["train"])(agreed["val"]))
    if fraction == 1:
        return
    others = torch.ones(len(train["x"]), dtype=torch.bool)
    others[chosen] = False
    rest = train["x"][others]
    believed, margin = _decisions(plain(rest), labels)
    clear = margin >= margin.median()
    for name, kept in (("all", torch.ones_like(clear)), ("the clearest half", clear)):
        x, y = torch.cat([train["x"][chosen], rest[kept]]), torch.cat([labels, believed[kept].to(labels)])
        yield f"self-training, {name}", scored(fit_logistic(x, y, classes, plain.strength)(val["x"]))
    near = F.normalize(own["val"]) @ F.normalize(own["train"]).T
    neighbours = near.topk(10).indices
    yield "propagation", scored((plain(val["x"]) + plain(train["x"])[neighbours].mean(1)) / 2)


def _decisions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels in the shares of the known ones, and how far each film's nearest decision is from its threshold."""
    count = (labels.float().mean(0) * len(logits)).round().long().clamp(1, len(logits))
    ordered = logits.sort(0, descending=True).values
    threshold = ordered.gather(0, count.unsqueeze(0) - 1)
    return logits >= threshold, (logits - threshold).abs().amin(1)


def _standard(x: Tensor, of: Tensor) -> Tensor:
    return (x - of.mean(0)) / of.std(0).clamp_min(1e-6)


def _principal(x: Tensor, count: int) -> Tensor:
    """The first axes of standardised features, (d, count)."""
    return torch.linalg.svd(_standard(x, x), full_matrices=False)[2][:count].T


def _canonical(train: dict[str, Tensor], val: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Features of both splits and beside them the canonical variates of pictures and texts, within 128 axes each."""
    bases, whitened = {}, {}
    for name in ("image", "text"):
        axes = _principal(train[name], 128)
        value = _standard(train[name], train[name]) @ axes
        bases[name], whitened[name] = (axes, value.std(0)), value / value.std(0)
    left, _, right = torch.linalg.svd(whitened["image"].T @ whitened["text"])
    turn = {"image": left[:, :count], "text": right[:count].T}
    found = {}
    for split, part in (("train", train), ("val", val)):
        variates = [
            _standard(part[name], train[name]) @ axes / scale @ turn[name] for name, (axes, scale) in bases.items()
        ]
        found[split] = torch.cat([part["x"], *variates], 1)
    return found


def report(found: dict[tuple[str, float], list[float]]) -> None:
    """Prints the table."""
    heads = [f"{fraction:.0%}" for fraction in FRACTIONS]
    print(f"\n| | {' | '.join(heads)} |\n|-|{'-|' * len(heads)}")
    for row in dict.fromkeys(row for row, _ in found):
        cells = []
        for fraction in FRACTIONS:
            values, base = found.get((row, fraction)), found["logistic regression", fraction]
            if not values:
                cells.append("")
                continue
            difference = [100 * (a - b) for a, b in zip(values, base, strict=True)]
            spread = f" ± {statistics.stdev(difference):.1f}" if len(difference) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f} ({statistics.fmean(difference):+.1f}{spread})")
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Does a second sensor help? Encoders and late fusion trained end to end from scratch, with all labels.

    python benchmarks/fusion_ceiling.py --folds 0 1 2 3 4 --seeds 0 1

Prints the test accuracy of each sensor alone and of both, for the default split (subjects 8 to 10 for test) and for
folds by subject. Where both are no better than one here, no fusion architecture can be.
"""

import argparse
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas import MotionEncoder, WatchDataModule
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.objectives.training import build_optimizer
from lightning_mmnas.views import MotionViews

STEPS, BATCH = 400, 64


def accuracy(sensors: list[str], seed: int, **split: Any) -> float:
    """Test accuracy of an end-to-end network on some sensors."""
    torch.manual_seed(seed)
    data = WatchDataModule(modalities=sensors, **split)
    data.setup("fit")
    data.setup("test")
    train, test = data.tensors("train"), data.tensors("test")
    encoders = nn.ModuleDict({name: MotionEncoder(spec) for name, spec in data.modalities.items()})
    shapes = {
        f"{name}/{level}": shape
        for name, spec in data.modalities.items()
        for level, shape in enumerate(MotionEncoder(spec).feature_shapes)
    }
    body, views = LateFusion(shapes), MotionViews()
    head = nn.Linear(body.out_features, len(data.class_names))
    modules = nn.ModuleList([encoders, body, head]).train()

    def logits(batch: dict[str, Tensor]) -> Tensor:
        features = {f"{n}/{level}": f for n in sensors for level, f in enumerate(encoders[n](batch[n]))}
        out: Tensor = head(body(features))
        return out

    groups = [
        {"params": [*encoders.parameters(), *body.parameters()], "lr": 2e-3},
        {"params": list(head.parameters()), "lr": 5e-3},
    ]
    optimizer, schedule = build_optimizer(groups, 1e-2, "one_cycle", STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(train["label"]), (BATCH,))
        loss = F.cross_entropy(logits({n: views(train[n][chosen]) for n in sensors}), train["label"][chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    modules.eval()
    with torch.no_grad():
        return float((logits(test).argmax(1) == test["label"]).float().mean())


def main() -> None:
    """Prints one line per split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    splits: dict[str, dict[str, int]] = {"default split": {}}
    splits |= {f"fold {fold}": {"folds": 5, "fold": fold} for fold in options.folds}
    sensors = ["accelerometer", "gyroscope"]
    for name, split in splits.items():
        found = {}
        for chosen in ([sensors[0]], [sensors[1]], sensors):
            values = [accuracy(chosen, seed, **split) for seed in options.seeds]
            found["+".join(chosen)] = statistics.fmean(values)
        print(name, {label: round(value, 3) for label, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()

"""The facts of a made-up run."""

from pathlib import Path
from typing import Any

from lightning_mmnas.files import write_json, write_text
from lightning_mmnas.space import FusionSpace, Genotype

SPACE = FusionSpace(inputs=("image/0", "image/1", "text/0"), cells=1, steps=1, channels=4, length=2)


def genotype(primitive: str = "sum") -> dict[str, Any]:
    cells = [{"inputs": ["image/1", "text/0"], "steps": [{"inputs": ["x", "y"], "primitive": primitive}]}]
    found: dict[str, Any] = Genotype.model_validate({"space": SPACE.model_dump(), "cells": cells}).model_dump(
        mode="json"
    )
    return found


def comparison() -> list[dict[str, Any]]:
    scores: dict[str, dict[int | str, list[float]]] = {
        "found+ssl": {5: [0.7, 0.72, 0.74], "all": [0.9, 0.91, 0.92]},
        "random+ssl": {5: [0.69, 0.73, 0.74], "all": [0.8, 0.812, 0.82]},
        "raw_features": {5: [0.6, 0.61, 0.64], "all": [0.85, 0.85, 0.85]},
    }
    return [
        {
            "name": name,
            "labels_per_class": budget,
            "metric": "accuracy",
            "mean": sum(draws) / 3,
            "std": 0.01,
            "n": 3,
            "scores": draws,
        }
        for budget in (5, "all")
        for name, by_budget in scores.items()
        for draws in [by_budget[budget]]
    ]


def make_run(folder: Path, **changes: Any) -> Path:
    """Writes what `mmnas run` leaves behind, but no model."""
    results = {
        "stages": {"search": {"seconds": 2.0}, "pretrain": {"seconds": 1.0}, "finetune": {"seconds": 0.5}},
        "comparison_seconds": 3.0,
        "total_seconds": 6.5,
        "genotype": genotype(),
        "space_size": 12,
        "parameters": {"network": 1234},
        "comparison": comparison(),
        "seed": 7,
        "versions": {"python": "3"},
        "command": "mmnas run mine --seed 7",
        **changes,
    }
    write_json(folder / "results.json", results)
    entry = {"cell0 x": [0.25, 0.75], "cell0 step0": [0.5, 0.5]}
    choices = {"cell0 x": ["image/0", "image/1"], "cell0 step0": ["sum", "attention"]}
    epochs = [{"epoch": k, "weights": entry} for k in range(3)]
    write_json(folder / "genotype.weights.json", {"choices": choices, "epochs": epochs})
    found = [{"score": 1.5, "genotype": genotype("attention")}, {"score": 2.5, "genotype": genotype()}]
    write_json(
        folder / "genotype.selection.json",
        {"criterion": "ViewLoss", "steps": 4, "architecture_steps": 7, "entropy": 0.25, "candidates": found},
    )
    logs = "epoch,step,train/loss,val/loss\n0,1,3.0,\n0,1,,2.5\n1,2,2.0,\n1,2,,nan\n"
    write_text(folder / "search" / "logs" / "version_0" / "metrics.csv", logs)
    write_text(folder / "search" / "config.yaml", "run_dir: runs/x\n# <script>alert(1)</script>\n")
    return folder


def model(task: str = "multiclass") -> dict[str, Any]:
    """What `analysis.json` holds of a model."""
    several = task == "multilabel"
    found: dict[str, Any] = {
        "task": task,
        "classes": ["<b>cat</b>", "$dog$"],
        "modalities": {"image": {"kind": "image", "shape": [3, 8, 8]}, "text": {"kind": "text", "shape": [5]}},
        "features": {"image/0": [4, 8, 8], "image/1": [8, 4, 4], "text/0": [8]},
        "samples": {"shown": 3, "test": 3},
        "scores": {"accuracy": 0.75, "f1_weighted_tuned": 0.5},
        "metric": "f1_weighted_tuned" if several else "accuracy",
        "missing": {"metric": "accuracy", "all": 0.75, "without": {"image": 0.25, "text": 0.5}},
        "embeddings": {
            "method": "PCA",
            "labels": [0, 1, -1],
            "before": {"points": [[0, 0], [1, 1], [2, 0]], "variance": 0.8, "neighbour": 0.5},
            "after": {"points": [[0, 0], [3, 1], [2, 2]], "variance": 0.9, "neighbour": 1.0},
        },
        "costs": {
            "parts": [{"part": "network", "parameters": 1234.0, "flops": 2e6, "seconds": 0.004}],
            "device": "cpu",
            "threads": 1,
            "batch_size": 1,
        },
    }
    if several:
        row = {"label": "<b>cat</b>", "samples": 3, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
        error = {"index": 0, "label": 1, "has_it": True, "probability": 0.01, "loss": 4.0, "picture": "error-1.png"}
        return {**found, "labels": [row], "errors": [error]}
    error = {
        "index": 0,
        "true": 0,
        "predicted": 1,
        "probability": 0.9,
        "probability_of_true": 0.1,
        "picture": "error-1.png",
    }
    return {**found, "confusion": [[2, 1], [0, 3]], "errors": [error]}

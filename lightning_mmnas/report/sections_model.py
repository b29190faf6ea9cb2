"""The sections of a run's report that tell of its model: predictions, errors, vectors, modalities, costs, samples."""

from __future__ import annotations

from typing import Any

from lightning_mmnas.report import measures, plots_model
from lightning_mmnas.report.budgets import score_text
from lightning_mmnas.report.facts import Facts
from lightning_mmnas.report.section import Picture, Section, Table

_CONFUSED = 12
"""Pairs of classes that are listed, where there are too many classes to name them on the axes."""


def predictions(facts: Facts) -> Section | str:
    """Metrics, and the confusion matrix, the F1 of every label, or predictions against targets."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    shown, there = model["samples"]["shown"], model["samples"]["test"]
    part = "all" if shown == there else f"{shown:,} random ones of"
    words = [
        f"The model of the last stage, which is delivered in model/, on {part} {there:,} samples of the test split. "
        "The other rows of the comparison are trained anew with the labels of each draw."
    ]
    metrics = Table(["metric", "value"], [[name, score_text(value, 4)] for name, value in model["scores"].items()])
    if "scatter" in model:
        name = model["classes"][0]
        words.append(f"MAE and RMSE are in the unit of {name}; R2 is the share of its variance that is explained.")
        figure = plots_model.plot_scatter(model["scatter"], name)
        caption = "Every dot is a sample; on the line the prediction is the truth."
        return Section("Predictions", words, [Picture("scatter", caption, figure)], [metrics])
    if "confusion" in model:
        figure = plots_model.plot_confusion(model["confusion"], model["classes"])
        caption = "Counts of true (rows) and predicted (columns) classes; the darker, the larger the share of the row."
        tables = [metrics]
        if len(model["classes"]) > plots_model.NAMED:
            caption += " Classes are numbered from 0, in the order of model.json; below, those most often confused."
            rows = [
                [f"{model['classes'][i]} ({i})", f"{model['classes'][j]} ({j})", str(count)]
                for i, j, count in measures.most_confused(model["confusion"], _CONFUSED)
            ]
            tables.append(Table(["true", "predicted", "samples"], rows))
        return Section("Predictions", words, [Picture("confusion", caption, figure)], tables)
    figure = plots_model.plot_label_scores(model["labels"])
    caption = "F1 of the most frequent labels, with thresholds tuned on the validation split."
    rows = [
        [row["label"], str(row["samples"]), *(f"{row[name]:.3f}" for name in ("f1", "precision", "recall"))]
        for row in model["labels"]
    ]
    tables = [metrics, Table(["label", "samples", "F1", "precision", "recall"], rows)]
    return Section("Predictions", words, [Picture("labels-f1", caption, figure)], tables)


def errors(facts: Facts) -> Section | str:
    """The most confident errors with their samples."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    if not model["errors"]:
        return "The model made no errors on the test samples, so none are shown."
    kind = "most confident" if model["task"] == "multiclass" else "largest"
    words = [f"The {kind} errors on the test split, each with its sample."]
    shown = [
        Picture(error["picture"].removesuffix(".png"), _error(error, model["classes"]), themed=False)
        for error in model["errors"]
    ]
    return Section(f"The {kind} errors", words, shown)


def _why_not(facts: Facts) -> str:
    return str(facts.get("why_no_model") or "The model of this run was not looked at.")


def _error(error: dict[str, Any], classes: list[str]) -> str:
    if "probability" not in error:
        return f"{classes[0]} predicted as {error['predicted']:.6g}; it is {error['true']:.6g}."
    if "has_it" in error:
        truth = "it has it" if error["has_it"] else "it does not have it"
        return f"Label {classes[error['label']]} given probability {error['probability']:.3f}, but {truth}."
    return (
        f"{classes[error['predicted']]} with probability {error['probability']:.3f}; it is {classes[error['true']]} "
        f"({error['probability_of_true']:.3f})."
    )


def embeddings(facts: Facts) -> Section | str:
    """Vectors of the network before and after pretraining."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    found = model["embeddings"]
    if not found:
        return "The network has no genotype, so its vectors before and after pretraining are not compared."
    words = [
        "What the network makes of the test samples with random weights and after pretraining without labels, "
        "projected onto the first two principal components (PCA) of each. Colours are "
        f"{'targets' if 'targets' in found else 'labels'}, which pretraining has not seen."
    ]
    apart = " of another group" if found.get("groups") else ""
    for moment in ("before", "after"):
        if moment in found:
            entry = found[moment]
            line = f"{moment.capitalize()}: two components hold {100 * entry['variance']:.0f} % of the variance"
            if entry.get("correlation") is not None:
                line += f"; targets correlate by {entry['correlation']:.3f} with those of the most similar other sample"
                line += apart
            if entry["neighbour"] is not None:
                share = f"{100 * entry['neighbour']:.1f} %"
                line += f"; the most similar other sample{apart} shares its label in {share} of the cases"
            words.append(f"{line}.")
    figure = plots_model.plot_embeddings(found, model["classes"])
    return Section("Embeddings", words, [Picture("embeddings", "PCA before and after pretraining.", figure)])


def modalities(facts: Facts) -> Section | str:
    """The score without each modality."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    missing = model["missing"]
    if not missing["without"]:
        return "There is one modality only, so none can be removed."
    words = [
        "The same model with one modality replaced by its training-set mean (a text by padding) in every test sample. "
        "The model was not trained again; a small loss means that the rest makes up for it."
    ]
    figure = plots_model.plot_missing(missing)
    caption = f"The {missing['metric']} with all modalities and without each."
    return Section("Without a modality", words, [Picture("missing", caption, figure)])


def costs(facts: Facts) -> Section | str:
    """Parameters, operations and seconds of one sample."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    found = model["costs"]
    rows = [
        [
            part["part"],
            f"{part['parameters']:,.0f}",
            f"{part['flops'] / 1e6:,.2f}",
            f"{1e3 * part['seconds']:,.2f}",
        ]
        for part in found["parts"]
    ]
    where = f"{found['device']}, {found['threads']} thread" if found["device"] == "cpu" else found["device"]
    words = [
        f"Latency: median of repeated calls with one sample, without gradients ({where}), beside whatever else the "
        "machine was doing. Operations are those of matrix products and convolutions, two per multiplication and "
        "addition."
    ]
    return Section("Costs", words, [], [Table(["part", "parameters", "MFLOPs", "latency, ms"], rows)])


def samples(facts: Facts) -> Section | str:
    """A few samples and their views."""
    model = facts.get("model")
    if not model:
        return _why_not(facts)
    kinds = [[name, spec["kind"], " x ".join(map(str, spec["shape"]))] for name, spec in model["modalities"].items()]
    table = Table(["modality", "kind", "shape of a sample"], kinds, numbers=False)
    if not model.get("samples_picture"):
        return Section("Samples", ["The last stage makes no views, so none are drawn."], [], [table])
    caption = "Training samples, a row each, and two random views of every modality."
    picture = Picture(model["samples_picture"].removesuffix(".png"), caption, themed=False, wide=True)
    return Section("Samples and their views", [], [picture], [table])

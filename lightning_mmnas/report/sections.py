"""The sections of a run's report that tell of its training: scores, curves, the search, the network, the record.

Each takes the facts of a run, the content of its `analysis.json`, and returns a section, or a sentence that says why
there is none.
"""

from __future__ import annotations

from typing import Any

from lightning_mmnas.report import plots
from lightning_mmnas.report.architecture import plot_genotype
from lightning_mmnas.report.budgets import budget_name, budget_of, counted, measured, score_text, unit_of
from lightning_mmnas.report.facts import STAGES, Facts
from lightning_mmnas.report.section import Picture, Section, Table
from lightning_mmnas.report.verdicts import half_width
from lightning_mmnas.space.genotype import Genotype

_WORDS = {
    "encoders": "Encoders, each pretrained on its own modality",
    "search": "Search: weights of the supernet, without labels",
    "pretrain": "Pretraining of the found network, without labels",
    "finetune": "Fine-tuning, with labels",
}


def scores(facts: Facts) -> Section | str:
    """The comparison, as a picture per label budget, one against labels, and a table."""
    comparison = facts["comparison"]
    if not comparison:
        return "This run has no comparison with other models."
    budgets = list(dict.fromkeys(budget_of(row) for row in comparison))
    unit, known = unit_of(comparison[0]), measured(comparison)
    drawn = [
        Picture(
            f"comparison-{budget}",
            f"{budget_name(budget, unit).capitalize()}: mean (large dot), single draws (small dots) and the 95 % "
            "interval of the mean (line; cut off at the frame); the found, pretrained network is orange.",
            plots.plot_comparison(known, budget),
        )
        for budget in budgets
        if sum(budget_of(row) == budget for row in known) > 1
    ]
    if len(drawn) > 1:
        caption = "Mean score against labels: the found network and those that did best over all budgets."
        drawn.append(Picture("labels", caption, plots.plot_labels(known)))
    cells = {(row["name"], budget_of(row)): row for row in comparison}
    rows = [
        [name, *(_mean(cells.get((name, budget))) for budget in budgets)]
        for name in dict.fromkeys(row["name"] for row in comparison)
    ]
    header = ["model", *(budget_name(budget, unit) for budget in budgets)]
    words = [
        f"The {comparison[0]['metric']} of every model on the test split: mean ± half of its 95 % interval over "
        f"{counted(comparison[0]['n'], 'draw')} of the labels or, with all labels, seeds; 'delivered' is the model in "
        "model/.",
        *facts["verdicts"],
    ]
    if len(budgets) == 1:
        words.append("There is one label budget only, so no picture of the score against labels.")
    return Section("Comparison", words, drawn, [Table(header, rows)])


def curves(facts: Facts) -> Section | str:
    """Losses and metrics of all stages."""
    if not facts["curves"]:
        return "No stage has left a metrics.csv, so there are no curves."
    shown = [
        Picture(f"curves-{stage}", f"{_WORDS[stage]}.", plots.plot_curves(facts["curves"][stage], stage))
        for stage in STAGES
        if stage in facts["curves"]
    ]
    return Section("Curves of the stages", [], shown)


def weights(facts: Facts) -> Section | str:
    """Weights of the search over time."""
    record = facts["architecture"]
    if not record or not record.get("epochs"):
        return "The search has left no weights over time (genotype.weights.json)."
    cells = list(dict.fromkeys(name.split()[0] for name in record["choices"]))
    shown = [
        Picture(
            f"weights-{cell}",
            f"{cell}: weight of every option after every epoch; 1 is a decision, equal colours are none.",
            plots.plot_weights(record, cell),
        )
        for cell in cells
    ]
    words = "What each choice of the search leaned to. In the epochs of its warm-up the weights do not move."
    return Section("Architecture weights over time", [words, *_searched(facts["selection"] or {})], shown)


def _searched(selection: dict[str, Any]) -> list[str]:
    """How much was searched, and how decided it ended."""
    steps, entropy = selection.get("architecture_steps"), selection.get("entropy")
    if steps is None or entropy is None:
        return []
    return [
        f"{_count(steps, 'architecture step')} of the search left the mixtures with {entropy:.3f} of the entropy of "
        "equal weights: 1 is undecided, 0 decided."
    ]


def candidates(facts: Facts) -> Section | str:
    """Candidates with their scores, and the one that was chosen."""
    selection = facts["selection"]
    if not selection or not selection.get("candidates"):
        return "The search kept the favoured architecture: no other candidates were scored."
    found = selection["candidates"]
    place = next((k for k, entry in enumerate(found) if _same(entry["genotype"], facts["genotype"])), 0)
    costs = "cost" in found[0]
    rows = []
    for k, entry in enumerate(found):
        row = [f"{k + 1}{', chosen' if k == place else ''}", f"{entry['score']:.4f}"]
        rows.append([*row, *([f"{entry['cost']:.4g}"] if costs else []), describe(entry["genotype"])])
    header = ["candidate", selection["criterion"], *([selection["cost"]["kind"]] if costs else []), "architecture"]
    words = (
        f"Each candidate was trained alone for {selection['steps']} steps without labels and scored by "
        f"{selection['criterion']} on samples it had not seen; the lowest score won."
    )
    if selection["criterion"] == "labels":
        words = f"Each candidate was trained with labels for {selection['steps']} steps; the lowest loss won."
    picture = plots.plot_candidates([float(entry["score"]) for entry in found], selection["criterion"], place)
    drawn = Picture("candidates", "Scores of the candidates, best first.", picture)
    return Section("Candidates", [words], [drawn], [Table(header, rows, numbers=False)])


def network(facts: Facts) -> Section | str:
    """The genotype's drawing, its sizes, and what the names of its inputs mean."""
    if not facts["genotype"]:
        return "The run has no genotype, so no network is drawn."
    genotype = Genotype.model_validate(facts["genotype"])
    space = genotype.space
    read, example = genotype.inputs_read(), space.inputs[-1]
    modality, _, level = example.rpartition("/")
    shapes: dict[str, Any] = (facts.get("model") or {}).get("features", {})
    words = [
        f"{_count(space.cells, 'cell')} of {_count(space.steps, 'step')}; every state has {space.channels} channels at "
        f"{space.length} positions."
        + (f" One of {facts['space_size']:,} different networks of its space." if facts["space_size"] else ""),
        f"An input such as {example} is level {level} of the features that the frozen encoder of {modality} computes: "
        "level 0 is the shallowest, the highest level the deepest. Each is pooled to the positions and mapped to the "
        "channels above.",
    ]
    rows = [
        [
            name,
            name.rpartition("/")[0],
            name.rpartition("/")[2],
            " x ".join(map(str, shapes[name])) if name in shapes else "not known",
            "yes" if name in read else "no",
        ]
        for name in space.inputs
    ]
    picture = Picture("genotype", "The found network.", plot_genotype(genotype), themed=False, wide=True)
    table = Table(["input", "modality", "level", "shape of a sample", "read"], rows, numbers=False)
    return Section("The found network", words, [picture], [table], {"As text": genotype.describe()})


def record(facts: Facts) -> Section | str:
    """Command, seed, versions, seconds, memory and configurations."""
    seconds = [[name, f"{stage['seconds']:.1f}"] for name, stage in facts["stages"].items()]
    seconds += [["comparison", f"{facts['comparison_seconds'] or 0:.1f}"], ["all", f"{facts['total_seconds']:.1f}"]]
    rest = [["seed", str(facts["seed"])]]
    rest += [[name, str(version)] for name, version in (facts["versions"] or {}).items()]
    for kind, value in (facts.get("memory") or {}).items():
        rest.append([f"peak memory, {kind}", f"{value / 2**20:,.0f} MiB"])
    texts = {f"Configuration of {name}": text for name, text in facts["configs"].items()}
    texts |= {f"Command of {name}": text for name, text in facts["commands"].items() if text}
    words = [f"Made by: {facts['command']}"]
    tables = [Table(["stage", "seconds"], seconds), Table(["what", "value"], rest)]
    return Section("How it was made", words, [], tables, texts)


def describe(genotype: dict[str, Any]) -> str:
    """A genotype in one line: for each cell its two inputs and the primitives of its steps."""
    parts = []
    for i, cell in enumerate(genotype["cells"]):
        steps = ", ".join(str(step["primitive"]).rpartition(".")[2] for step in cell["steps"])
        parts.append(f"cell{i}: {' + '.join(cell['inputs'])} by {steps}")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _same(first: dict[str, Any], second: dict[str, Any] | None) -> bool:
    return second is not None and first["cells"] == second["cells"]


def _mean(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    half = half_width(row.get("scores") or [])
    return score_text(row["mean"]) if half is None else f"{row['mean']:.3f} ± {half:.3f}"

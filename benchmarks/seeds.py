"""Runs `mmnas run CONFIGS` for several seeds and averages the comparison tables.

    python benchmarks/seeds.py watch --output runs/seeds --seeds 0 1 2 3 4

Finished runs are not repeated, so the script can be interrupted and called again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Runs what is missing, prints the mean over seeds and the seeds' standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="a folder of configurations, or a shipped one: watch")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, one per seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options, overrides = parser.parse_known_args()
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    seconds, modalities = [], []
    for seed in options.seeds:
        folder = options.output / str(seed)
        if not (folder / "results.json").is_file():
            command = ["run", options.configs, "--output", str(folder), "--seed", str(seed), *overrides]
            subprocess.run([sys.executable, "-m", "lightning_mmnas", *command], check=True)
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        seconds.append(results["total_seconds"])
        read = {name.split("/")[0] for cell in results["genotype"]["cells"] for name in cell["inputs"]}
        modalities.append(sorted(name for name in read if not name.startswith("cell")))
        for row in results["comparison"]:
            scores[row["name"], str(row["labels_per_class"])].append(row["mean"])

    names = list(dict.fromkeys(name for name, _ in scores))
    budgets = list(dict.fromkeys(budget for _, budget in scores))
    print(f"\nseeds {options.seeds}: mean ± standard deviation over seeds; {statistics.fmean(seconds):.0f} s per run")
    print(f"| | {' | '.join(budgets)} |\n|-|{'-|' * len(budgets)}")
    for name in names:
        cells = []
        for budget in budgets:
            values = scores[name, budget]
            if not values:  # the delivered model has one budget
                cells.append("")
                continue
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"genotypes read: {modalities}")


if __name__ == "__main__":
    main()

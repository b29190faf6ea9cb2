"""Counts searches that return a network blind to a modality when the coverage rule is off.

    python benchmarks/modality_blindness.py --run runs/watch --searches 10

Needs a run whose encoders are trained (`mmnas run watch --output runs/watch`).
"""

import argparse
from pathlib import Path

from lightning.pytorch.utilities.seed import isolate_rng

from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.modules.search import FusionSearch


def main() -> None:
    """Searches with seeds 0, 1, … on the same encoders and prints what each network reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with trained encoders")
    parser.add_argument("--configs", default="watch", help="folder of stage configurations, or a shipped one")
    parser.add_argument("--searches", type=int, default=10)
    options, overrides = parser.parse_known_args()
    config = find_configs(options.configs) / "search.yaml"
    seed_of_run = (options.run / "encoders" / "config.yaml").read_text(encoding="utf-8")
    fold = next(line.split(":")[1].strip() for line in seed_of_run.splitlines() if line.strip().startswith("fold:"))
    blind = 0
    for seed in range(options.searches):
        with isolate_rng():
            arguments = ["fit", *config_options(config), "--run_dir", str(options.run)]
            arguments += ["--seed_everything", str(seed), "--data.init_args.fold", fold]
            # Only the alternation: no selection, no checkpoint, nothing written into the run.
            arguments += ["--trainer.callbacks", "ArchitectureAlternation", "--trainer.callbacks.lr", "0.1"]
            arguments += ["--trainer.callbacks.warmup_epochs", "3", "--trainer.logger", "false"]
            arguments += ["--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false"]
            model = MMNASCLI([*arguments, *overrides], save_config_callback=None).model
        assert isinstance(model, FusionSearch)
        genotype = model.supernet.decode(coverage=False, distinct=False)
        read = sorted(genotype.modalities_read())
        blind += len(read) < len(model.space.modalities)
        print(f"seed {seed}: reads {read}: {[cell.inputs for cell in genotype.cells]}", flush=True)
    print(f"{blind} of {options.searches} searches returned a network blind to a modality")


if __name__ == "__main__":
    main()

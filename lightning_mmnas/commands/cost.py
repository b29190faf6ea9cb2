"""`mmnas cost`: what the fusion network of a genotype costs, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from lightning_mmnas.modules.search import FusionSearch
    from lightning_mmnas.space.genotype import Genotype

_HELP = """usage: mmnas cost GENOTYPE [--config common.yaml] --config SEARCH.yaml [options of mmnas fit]

Prints the parameters, the FLOPs per sample (matrix products and convolutions) and the latency of the
fusion network of a genotype, its file or the folder of its run: of every part, their sum, and, for
latency, that of the whole network as measured. Latency is for one sample, without gradients, on the
trainer's device and, for one of the "true" precisions, in its type. The shapes of the features are
those of the search's encoders, whose weights are not needed. The readout is
model.init_args.cost_readout. Encoders and classifier are not counted."""


def command(args: list[str]) -> None:
    """Prints the costs of a genotype, given its file and the arguments of `mmnas fit`.

    Raises:
        ConfigError: No genotype or configuration is given, or it is not that of a search.
        GenotypeError: The genotype is for another space than that of the search.
    """
    if "-h" in args or "--help" in args:
        print(_HELP)
        return
    if len(args) < 2 or args[0].startswith("-"):
        Parser(prog="mmnas cost").error(
            "give a genotype and a configuration: genotype.json --config common.yaml --config search.yaml"
        )
    from lightning_mmnas.commands.lightning_cli import MMNASCLI
    from lightning_mmnas.commands.show import genotype_file
    from lightning_mmnas.modules.search import FusionSearch
    from lightning_mmnas.space.genotype import Genotype

    _require_model(args[1:])
    genotype = Genotype.load(genotype_file(Path(args[0])))
    # Encoders cost the same whatever their weights, which may not be there yet.
    cli = MMNASCLI([*args[1:], "--model.init_args.encoder_weights=null"], run=False, save_config_callback=None)
    module = cli.model
    if not isinstance(module, FusionSearch):
        raise ConfigError(f"mmnas cost needs the configuration of a FusionSearch, not of {type(module).__name__}")
    genotype.require_space(module.space)

    import torch
    from rich.console import Console

    dtype = cli.trainer.precision_plugin.convert_input(torch.zeros(())).dtype
    Console().print(_table(genotype, module, cli.trainer.strategy.root_device, dtype))


def _require_model(args: list[str]) -> None:
    """Refuses arguments without a model, such as those of common.yaml alone."""
    from lightning_mmnas.commands.shared import given_configs
    from lightning_mmnas.parsing import read_yaml

    contents = [read_yaml(path) for path in given_configs(args)]
    said = any(isinstance(content, dict) and "model" in content for content in contents)
    if contents and not said and not any(arg.startswith("--model") for arg in args):
        raise ConfigError("no configuration says which model; mmnas cost needs that of a search: --config search.yaml")


def _table(genotype: Genotype, module: FusionSearch, device: torch.device, dtype: torch.dtype) -> Any:
    import torch
    from rich.table import Table
    from rich.text import Text

    from lightning_mmnas.costs.measuring import CostKind, measure_latency
    from lightning_mmnas.costs.table import CostTable
    from lightning_mmnas.fusion.network import FusionNetwork

    shapes, readout = module.encoders.feature_shapes, module.cost.readout
    nodes: dict[str, Any] = {name: module.built_with[name] for name in ("pool", "grid")}
    kinds: tuple[CostKind, ...] = ("parameters", "flops", "latency")
    tables = [
        CostTable.measure(module.space, shapes, kind, readout, device=device, dtype=dtype, **nodes) for kind in kinds
    ]
    features = {name: torch.rand(1, *shape, device=device, dtype=dtype) for name, shape in shapes.items()}
    network = FusionNetwork(genotype, shapes, readout, 0.0, **nodes).eval().to(device, dtype)
    whole = measure_latency(network, (features,), torch.get_num_threads())

    table = Table("", "parameters", "FLOPs", "latency, µs", title=f"fusion network, readout {readout}")
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, costs: list[float], **style: Any) -> None:
        table.add_row(Text(name), f"{costs[0]:,.0f}", f"{costs[1]:,.0f}", f"{1e6 * costs[2]:,.1f}", **style)

    named = {name for cell in genotype.cells for name in cell.inputs}
    for name in (name for name in module.space.inputs if name in named):
        row(f"input {name}", [costs.inputs[name] for costs in tables])
    for i, cell in enumerate(genotype.cells):
        for t, step in enumerate(cell.steps):
            row(f"cell{i} step{t} {step.primitive}", [costs.primitives[step.primitive] for costs in tables])
    row("cell outputs and readout", [costs.fixed for costs in tables], end_section=True)
    row("sum", [costs.of(genotype) for costs in tables], style="bold")
    table.add_row("measured as a whole", "", "", f"{1e6 * whole:,.1f}")
    return table

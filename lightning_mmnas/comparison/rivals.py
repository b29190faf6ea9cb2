"""The networks beside the found one: random architectures, late fusion, single modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.decoding import decode
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.pairing import IndependentPairing
from lightning_mmnas.space.genotype import FusionSpace, Genotype


def rivals(
    genotype: Genotype, feature_shapes: Mapping[str, Sequence[int]], random: int, seed: int, **options: Any
) -> dict[str, nn.Module]:
    """Freshly initialised networks by name, the found architecture among them; "+ssl" are meant to be pretrained.

    Args:
        genotype: What the search found.
        feature_shapes: Shape of each feature without the batch axis, by name.
        random: Number of random architectures of its space; see `random_genotypes`.
        seed: Seed of their draw; the weights are drawn from the global generator.
        options: Further arguments of `FusionNetwork`.
    """
    generator = torch.Generator().manual_seed(seed)
    networks: dict[str, nn.Module] = {"found": FusionNetwork(genotype, feature_shapes, **options)}
    for i, other in enumerate(random_genotypes(genotype.space, random, generator)):
        networks[f"random{i}+ssl"] = FusionNetwork(other, feature_shapes, **options)
    networks["late_fusion"] = LateFusion(feature_shapes)
    networks["late_fusion+ssl"] = LateFusion(feature_shapes)
    networks["late_fusion_all_levels"] = LateFusion(feature_shapes, all_levels=True)
    networks["late_fusion_linear"] = LateFusion(feature_shapes, hidden=None)
    for modality in genotype.space.modalities:
        networks[f"modality:{modality}"] = LateFusion(feature_shapes, modalities=[modality])
    return networks


def random_genotypes(space: FusionSpace, count: int, generator: torch.Generator) -> list[Genotype]:
    """Returns architectures drawn uniformly; of a space too large to be counted, drawn by equally likely choices.

    The second way draws every pair of inputs and every primitive as decoding draws from undecided logits, without its
    rules about modalities and repeated inputs.
    """
    try:
        return [space.sample(generator) for _ in range(count)]
    except GenotypeError:
        logits = IndependentPairing(space)
        rules = {"coverage": False, "distinct": False}
        return [decode(logits.scores().perturbed(generator), space, logits.variants, **rules) for _ in range(count)]

"""A genotype as the values of a few categorical parameters, and back: what Optuna's samplers see of a space."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.decoding import Pair, Scores, decode
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype
from lightning_mmnas.space.primitive_names import is_symmetric


class ChoiceEncoding:
    """One parameter per choice: the inputs of every cell, the inputs and the primitive of every step.

    Where there is nothing to choose there is no parameter. Every network of the space can be written so. A few
    combinations leave a step or a cell that nothing reads; such a one stands for the legal network that differs from
    it in the fewest choices (with the primitive zero, in nearly the fewest), of several the first in the order of
    candidates. So samplers never propose what cannot be built, and no trial is spent on it.

    Args:
        space: The search space.

    Attributes:
        choices: What each parameter can be, by name (``cell0.inputs``, ``cell0.step0.primitive``, ...), as texts.

    Examples:
        >>> encoding = ChoiceEncoding(FusionSpace(inputs=("image", "text"), primitives=("sum", "attention")))
        >>> encoding.choices["cell1.inputs"]
        ['["image", "text"]', '["image", "cell0"]', '["text", "cell0"]']
        >>> encoding.choices["cell0.step0.primitive"]
        ['sum', 'attention', 'attention swapped']
        >>> "cell0.inputs" in encoding.choices  # image and text, whatever happens
        False
    """

    def __init__(self, space: FusionSpace) -> None:
        self.space = space
        self.variants = [
            (name, swapped)
            for name in space.primitives
            for swapped in ((False,) if is_symmetric(name) else (False, True))
        ]
        everything: dict[str, list[str]] = {}
        for i in range(space.cells):
            everything[f"cell{i}.inputs"] = [_pair_text(pair) for pair in space.pairs(i)]
            for t in range(space.steps):
                pairs = combinations(space.step_candidates(t), 2)
                everything[f"cell{i}.step{t}.inputs"] = [_pair_text(pair) for pair in pairs]
                everything[f"cell{i}.step{t}.primitive"] = [_variant_text(variant) for variant in self.variants]
        self._everything = everything
        self.choices = {name: choices for name, choices in everything.items() if len(choices) > 1}

    def encode(self, genotype: Genotype) -> dict[str, str]:
        """Returns the value of every parameter.

        Raises:
            GenotypeError: The genotype is for another space.
        """
        genotype.require_space(self.space)
        states = self.space.step_candidates(self.space.steps)
        values = {}
        for i, cell in enumerate(genotype.cells):
            values[f"cell{i}.inputs"] = _pair_text(cell.inputs)
            for t, step in enumerate(cell.steps):
                first, second = sorted(step.inputs, key=states.index)
                swapped = step.inputs != (first, second) and not is_symmetric(step.primitive)
                values[f"cell{i}.step{t}.inputs"] = _pair_text((first, second))
                values[f"cell{i}.step{t}.primitive"] = _variant_text((step.primitive, swapped))
        return {name: value for name, value in values.items() if name in self.choices}

    def decode(self, values: Mapping[str, Any]) -> Genotype:
        """Returns the genotype of a value for every parameter; a legal one in any case.

        Raises:
            GenotypeError: A parameter is missing or has a value that it cannot have.
        """
        chosen = [
            (
                self._number(values, f"cell{i}.inputs"),
                [
                    (
                        self._number(values, f"cell{i}.step{t}.inputs"),
                        self._number(values, f"cell{i}.step{t}.primitive"),
                    )
                    for t in range(self.space.steps)
                ],
            )
            for i in range(self.space.cells)
        ]
        cells = []
        for i, (pair, steps) in enumerate(chosen):
            spelled = []
            for t, (states, variant) in enumerate(steps):
                first, second = list(combinations(self.space.step_candidates(t), 2))[states]
                primitive, swapped = self.variants[variant]
                spelled.append(
                    StepGenotype(inputs=(second, first) if swapped else (first, second), primitive=primitive)
                )
            cells.append(CellGenotype(inputs=self.space.pairs(i)[pair], steps=tuple(spelled)))
        try:
            return Genotype(space=self.space, cells=tuple(cells))
        except GenotypeError:  # something is dead
            return self._nearest(chosen)

    def _number(self, values: Mapping[str, Any], name: str) -> int:
        choices = self._everything[name]
        if len(choices) == 1:
            return 0
        if values.get(name) not in choices:
            raise GenotypeError(f"{name}: {values.get(name)!r} is not in {choices}")
        return choices.index(values[name])

    def _nearest(self, chosen: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> Genotype:
        """The legal genotype that differs in the fewest choices: decoding, where every other choice costs 1."""

        def costs(pairs: Sequence[Pair], number: int) -> dict[Pair, float]:
            return {pair: 0.0 if k == number else -1.0 for k, pair in enumerate(pairs)}

        space = self.space
        states = [list(combinations(range(2 + t), 2)) for t in range(space.steps)]
        scores = Scores(
            cells=[
                costs(list(combinations(range(len(space.inputs) + i), 2)) or [(0, 0)], pair)
                for i, (pair, _) in enumerate(chosen)
            ],
            steps=[[costs(states[t], pair) for t, (pair, _) in enumerate(steps)] for _, steps in chosen],
            variants=[
                [[0.0 if k == variant else -1.0 for k in range(len(self.variants))] for _, variant in steps]
                for _, steps in chosen
            ],
        )
        return decode(scores, space, self.variants, coverage=False, distinct=False)


class NumberEncoding:
    """One parameter, the number of the network in the order of `FusionSpace.enumerate`.

    Args:
        space: The search space.

    Raises:
        GenotypeError: The space has more than `LIMIT` networks, or too many to count.
    """

    LIMIT = 20_000
    """More networks than these are not listed: every proposal looks at all the trials before it."""

    def __init__(self, space: FusionSpace) -> None:
        size = space.size()
        if size > self.LIMIT:
            raise GenotypeError(
                f"the space has {size:,} networks; up to {self.LIMIT:,} can be tried one by one: take another sampler"
            )
        self.space = space
        self.networks = list(space.enumerate())

    def decode(self, values: Mapping[str, Any]) -> Genotype:
        """Returns the network of the number ``values["network"]``."""
        number: int = values["network"]
        return self.networks[number]


def _pair_text(pair: tuple[str, str]) -> str:
    return json.dumps(pair, ensure_ascii=False)


def _variant_text(variant: tuple[str, bool]) -> str:
    return f"{variant[0]} swapped" if variant[1] else variant[0]

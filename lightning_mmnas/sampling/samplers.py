"""Optuna's samplers and pruners by name, seeded so that a broken study goes on as an unbroken one would have."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from lightning_mmnas.errors import StudyError
from lightning_mmnas.sampling.encoding import ChoiceEncoding, NumberEncoding

SamplerName = Literal["random", "tpe", "nsga2", "brute_force"]
PrunerName = Literal["none", "median", "hyperband"]


class UniformSampler(BaseSampler):
    """Draws uniformly from the different networks of a space, not from the ways to write them down.

    Args:
        encoding: The space and its parameters.
        seed: Seed of the draws.
    """

    def __init__(self, encoding: ChoiceEncoding, seed: int) -> None:
        self._encoding = encoding
        self._generator = torch.Generator().manual_seed(seed)

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(choices) for name, choices in self._encoding.choices.items()}

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self._encoding.encode(self._encoding.space.sample(self._generator)))

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise StudyError(f"{param_name} is no parameter of this space, which has {list(self._encoding.choices)}")


class SeededByTrial(BaseSampler):
    """Asks a new sampler for every trial, whose seed follows from the seed of the study and the trial's place in it.

    What is proposed then depends on the seed and on the trials of the study alone. Several processes with the same
    seed make different proposals. Failed trials have no place: they are repeated.

    Args:
        build: Builds the sampler from a seed.
        seed: Seed of the study.

    Attributes:
        study: The study; set it before the first trial. (Pruners show samplers a part of it only.)
    """

    study: Study

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build = build
        self._seed = seed
        self._current: BaseSampler | None = None

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        others = self.study.get_trials(deepcopy=False)
        place = sum(other.number < trial.number and other.state != TrialState.FAIL for other in others)
        state = np.random.SeedSequence([self._seed, place]).generate_state(1)
        self._current = self._build(int(state[0]))
        self._current.before_trial(study, trial)

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._asked().infer_relative_search_space(study, trial)

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._asked().sample_relative(study, trial, search_space)

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._asked().sample_independent(study, trial, param_name, param_distribution)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        if self._current is not None:  # None: a trial of another process, which has died
            self._current.after_trial(study, trial, state, values)

    def _asked(self) -> BaseSampler:
        assert self._current is not None  # Optuna calls before_trial first
        return self._current


POPULATION = 10
"""Networks of a generation of NSGA-II: with Optuna's 50 a study of 50 trials would be random search."""


def build_sampler(
    name: SamplerName, encoding: ChoiceEncoding | NumberEncoding, seed: int, options: Mapping[str, Any]
) -> SeededByTrial:
    """Returns the sampler of a study.

    Args:
        name: ``"random"``; ``"tpe"``, the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011);
            ``"nsga2"`` (Deb et al., 2002); ``"brute_force"``, every network once.
        encoding: How networks are written as parameters.
        seed: Seed of the study.
        options: Further arguments of Optuna's class, such as ``population_size`` of NSGA-II.

    Raises:
        StudyError: There is no sampler of that name.
    """

    def build(trial_seed: int) -> BaseSampler:
        if name == "random":
            assert isinstance(encoding, ChoiceEncoding)
            return UniformSampler(encoding, trial_seed)
        if name == "tpe":
            return TPESampler(seed=trial_seed, **options)
        if name == "nsga2":
            return NSGAIISampler(seed=trial_seed, **{"population_size": POPULATION, **options})
        with warnings.catch_warnings():  # its interface "can change in the future"
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return BruteForceSampler(seed=trial_seed)

    require_known("sampler", name, get_args(SamplerName))
    return SeededByTrial(build, seed)


def build_pruner(name: PrunerName, steps: int) -> BasePruner:
    """Returns Optuna's pruner of a name.

    Args:
        name: ``"none"``; ``"median"``: a trial ends where it is worse than the median of the others at that step;
            ``"hyperband"`` (Li et al., JMLR 2018).
        steps: Steps of a trial that is not stopped.

    Raises:
        StudyError: There is no pruner of that name.
    """
    require_known("pruner", name, get_args(PrunerName))
    if name == "median":
        return MedianPruner()
    if name == "hyperband":
        return HyperbandPruner(min_resource=max(1, steps // 9), max_resource=max(steps, 1), reduction_factor=3)
    return NopPruner()


def require_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raises `StudyError` unless a name is one of those known."""
    if name not in known:
        raise StudyError(f"there is no {what} {name!r}; accepted: {', '.join(known)}")

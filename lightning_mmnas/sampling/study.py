"""FusionStudy: an Optuna study over the networks of a FusionSpace."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_mmnas.errors import StudyError
from lightning_mmnas.sampling.encoding import ChoiceEncoding, NumberEncoding
from lightning_mmnas.sampling.samplers import PrunerName, SamplerName, build_pruner, build_sampler
from lightning_mmnas.sampling.storage import has_died, open_storage, this_process, without_password
from lightning_mmnas.space.genotype import FusionSpace, Genotype

Report = Callable[[int, float], None]
"""(step, value so far): lets the pruner stop the trial, which it does by an exception that must pass."""

Evaluate = Callable[[Genotype, Report], Mapping[str, float]]
"""(genotype, report) -> what was measured, by name; objectives are minimised."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class SampledNetwork:
    """One finished trial of a study.

    Attributes:
        number: Number of the trial.
        genotype: The network.
        values: The objectives; None where the pruner stopped the trial, or where an objective is not finite.
        measured: All that was measured.
        params: The values of the sampler's parameters.
        seconds: How long the evaluation took.
        same_as: Number of the earlier trial of the same network whose values were taken over.
    """

    number: int
    genotype: Genotype
    values: tuple[float, ...] | None
    measured: Mapping[str, float]
    params: Mapping[str, Any]
    seconds: float
    same_as: int | None


class FusionStudy:
    """A search without gradients: Optuna proposes networks, a function of yours says what each is worth.

    A network that comes again is not evaluated again. A study in a storage is continued by opening it once more, also
    while other processes work on it.

    Args:
        space: The search space.
        sampler: See `build_sampler`; it may change from call to call, except from or to ``"brute_force"``.
        objectives: Names of what is minimised, among those that the evaluation measures.
        seed: Seed of the proposals; with one process they depend on it and on the values alone.
        storage: See `open_storage`; None: in memory.
        name: Name of the study in its storage.
        facts: What else decides the values (steps, data, ...), as JSON; a study that was made with other facts is
            refused.
        pruner: See `build_pruner`; only for a single objective.
        steps: Steps of a trial that is not pruned, for the pruner.
        options: Further arguments of Optuna's sampler.

    Raises:
        StudyError: An unknown name, a storage that cannot be opened, or a study of another search.
        GenotypeError: ``"brute_force"`` in a space with too many networks.

    Examples:
        >>> from lightning_mmnas.space.genotype import FusionSpace
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text"), cells=1)
        >>> study = FusionStudy(space, "brute_force", objectives=("inputs",))
        >>> study.run(lambda genotype, report: {"inputs": len(genotype.inputs_read())}, trials=100)
        >>> len(study.networks()), study.best()[0].values  # all of them, and none reads a single input
        (15, (2.0,))
    """

    def __init__(
        self,
        space: FusionSpace,
        sampler: SamplerName = "tpe",
        objectives: Sequence[str] = ("criterion",),
        seed: int = 0,
        storage: str | None = None,
        name: str = "sample",
        facts: Mapping[str, Any] | None = None,
        pruner: PrunerName = "none",
        steps: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not objectives or len(set(objectives)) < len(objectives):
            raise StudyError(f"objectives must be one or more different names, got {list(objectives)}")
        if len(objectives) > 1 and pruner != "none":
            raise StudyError(f"pruner {pruner!r} stops trials by one objective, but there are {list(objectives)}")
        self.space = space
        self.objectives = tuple(objectives)
        listed = sampler == "brute_force"
        self._encoding = NumberEncoding(space) if listed else ChoiceEncoding(space)
        self._names = set(self._encoding.choices) if isinstance(self._encoding, ChoiceEncoding) else {"network"}
        self.facts = {
            "encoding": "number of the network" if listed else "choices",
            "objectives": list(objectives),
            "space": space.model_dump(mode="json"),
            **(facts or {}),
        }
        self._known: dict[Genotype, FrozenTrial] = {}
        self._compared: set[int] = set()
        self._networks: dict[int, SampledNetwork] = {}
        self._running: int | None = None
        chosen = build_sampler(sampler, self._encoding, seed, options or {})
        where = "memory" if storage is None else without_password(storage)
        unusable = "a storage that is damaged, or was interrupted while it was made, must be deleted, or choose another"
        with _quiet(), _storage_errors(where, unusable):
            self.study = optuna.create_study(
                storage=open_storage(storage),
                sampler=chosen,
                pruner=build_pruner(pruner, steps),
                study_name=name,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            chosen.study = self.study
            self._where = where
            self._claim(name)

    @property
    def finished(self) -> int:
        """Number of trials that are finished, those of other processes included."""
        return len(self.study.get_trials(deepcopy=False, states=_FINISHED))

    def run(
        self, evaluate: Evaluate, trials: int, done: Callable[[SampledNetwork], None] = lambda network: None
    ) -> None:
        """Goes on until the study has so many finished trials in all; with ``"brute_force"``, at most one per network.

        A trial that is interrupted, fails or was left unfinished by a process of this machine that has died comes
        first next time.

        Args:
            evaluate: Measures a network.
            trials: Finished trials wanted, those of earlier calls and other processes included.
            done: Called after each trial of this process.

        Raises:
            StudyError: The evaluation does not measure an objective, or the storage fails.
        """
        if isinstance(self._encoding, NumberEncoding):
            trials = min(trials, len(self._encoding.networks))

        def after(study: optuna.Study, trial: FrozenTrial) -> None:
            done(self._sampled(trial))
            if self.finished >= trials:
                study.stop()

        with _quiet(), _storage_errors(self._where, "finished trials are kept"):
            self._take_over()
            while (missing := trials - self.finished) > 0:
                self._running = None
                try:
                    self.study.optimize(lambda trial: self._objective(trial, evaluate), missing, callbacks=[after])
                except (Exception, KeyboardInterrupt):
                    if self._running is not None:
                        self._again(self._running)
                    raise

    def networks(self) -> list[SampledNetwork]:
        """Returns all finished trials in order."""
        return [self._sampled(trial) for trial in self.study.get_trials(deepcopy=False, states=_FINISHED)]

    def best(self) -> list[SampledNetwork]:
        """Returns the best network; of several objectives the Pareto set, each network once, by the first objective."""
        complete = sorted(
            (network for network in self.networks() if network.values is not None),
            key=lambda network: (network.values or (), network.number),
        )
        if len(self.objectives) == 1:
            return complete[:1]
        front: dict[Genotype, SampledNetwork] = {}
        for network in complete:  # sorted: no later one dominates an earlier one
            if not any(_dominates(other.values or (), network.values or ()) for other in front.values()):
                front.setdefault(network.genotype, network)
        return list(front.values())

    def _objective(self, trial: Trial, evaluate: Evaluate) -> tuple[float, ...]:
        self._running = trial.number
        trial.set_user_attr("process", this_process())
        _ = trial.relative_params  # asks the sampler even where the parameters were queued: NSGA-II then counts it
        genotype = self._suggest(trial)
        trial.set_user_attr("genotype", genotype.to_json(indent=None))
        twin = self._twin(genotype)
        start = time.monotonic()
        if twin is not None:
            trial.set_user_attr("same_as", twin.number)
            for step, value in sorted(twin.intermediate_values.items()):
                trial.report(value, step)
            measured = twin.user_attrs.get("measured", {})
        else:
            measured = {name: float(value) for name, value in evaluate(genotype, self._report(trial)).items()}
            missing = [name for name in self.objectives if name not in measured]
            if missing:
                raise StudyError(f"objective {missing[0]!r} is not measured; accepted: {', '.join(measured)}")
            measured = {name: value if math.isfinite(value) else None for name, value in measured.items()}
        trial.set_user_attr("measured", measured)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 3))
        values = tuple(measured.get(name) for name in self.objectives)
        if any(value is None for value in values):
            raise optuna.TrialPruned
        return values

    def _suggest(self, trial: Trial) -> Genotype:
        if isinstance(self._encoding, NumberEncoding):
            return self._encoding.decode({"network": trial.suggest_int("network", 0, len(self._encoding.networks) - 1)})
        choices = self._encoding.choices
        return self._encoding.decode({name: trial.suggest_categorical(name, choices[name]) for name in choices})

    def _report(self, trial: Trial) -> Report:
        def report(step: int, value: float) -> None:
            if len(self.objectives) > 1:
                return
            trial.report(value, step)
            if not math.isfinite(value) or trial.should_prune():
                raise optuna.TrialPruned

        return report

    def _twin(self, genotype: Genotype) -> FrozenTrial | None:
        """A finished trial of the same network."""
        for trial in self.study.get_trials(deepcopy=False, states=_FINISHED):
            if trial.number not in self._compared:
                self._compared.add(trial.number)
                self._known.setdefault(self._sampled(trial).genotype, trial)
        return self._known.get(genotype)

    def _sampled(self, trial: FrozenTrial) -> SampledNetwork:
        """A finished trial; each is read once only."""
        if trial.number not in self._networks:
            attributes = trial.user_attrs
            self._networks[trial.number] = SampledNetwork(
                trial.number,
                _genotype(trial),
                tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
                attributes.get("measured", {}),
                trial.params,
                attributes.get("seconds", 0.0),
                attributes.get("same_as"),
            )
        return self._networks[trial.number]

    def _claim(self, name: str) -> None:
        """Makes a new study ours, or checks that it already is."""
        wanted = json.loads(json.dumps(self.facts))
        there = self.study.user_attrs.get("facts")
        if there is None and not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr("facts", wanted)
            return
        here, there = _flatten(wanted), _flatten(there or {})
        different = [
            f"{key}: {there.get(key)!r} there, {here.get(key)!r} here"
            for key in (here | there)
            if here.get(key) != there.get(key)
        ]
        if different:
            reason = "; ".join(different[:3]) if there else "it was not made by this package"
            raise StudyError(
                f"study {name!r} in {self._where} is of another search ({reason}); choose another name or storage"
            )

    def _take_over(self) -> None:
        """Queues the trials again that processes of this machine left unfinished when they died."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if has_died(trial.user_attrs.get("process", "")):
                self._again(trial.number)

    def _again(self, number: int) -> None:
        """Queues a trial again unless it is finished.

        If it had not been proposed completely, its place in the study is free again, and the next proposal the same.
        """
        trial = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
        if trial.state == TrialState.RUNNING:
            try:
                self.study.tell(number, state=TrialState.FAIL)
            except ValueError:  # another process was quicker
                return
        elif trial.state != TrialState.FAIL:
            return
        if set(trial.params) == self._names:
            self.study.enqueue_trial(trial.params)


def _genotype(trial: FrozenTrial) -> Genotype:
    try:
        return Genotype.from_json(trial.user_attrs["genotype"])
    except KeyError:
        raise StudyError(f"trial {trial.number} of the study has no genotype; choose another --study") from None


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets Optuna speak of nothing less than errors for a while: trials are shown by `done`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _storage_errors(where: str, then: str) -> Iterator[None]:
    try:
        yield
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        then = "make room, and the same command goes on" if "disk is full" in reason else then
        raise StudyError(f"storage {where} fails: {without_password(reason)}; {then}") from error

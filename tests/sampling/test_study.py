"""Studies over tiny spaces with made-up values: what is proposed, how often, and what is kept."""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_mmnas import FusionSpace, Genotype
from lightning_mmnas.errors import GenotypeError, StudyError
from lightning_mmnas.sampling.samplers import build_pruner
from lightning_mmnas.sampling.study import FusionStudy, Report
from tests.ranks import context

TINY = FusionSpace(inputs=("a", "b"), cells=2, primitives=("sum", "attention"))
DEAD = FusionSpace(inputs=("a/0", "a/1", "b"), cells=2, cell_outputs=1, primitives=("sum", "concat_fc"))
LARGE = FusionSpace(inputs=tuple(f"{m}/{level}" for m in "abc" for level in range(4)), cells=3)

# What is good, piece by piece: a sampler that learns from its trials finds it sooner.
COSTS = {"sum": 3.0, "attention": 2.0, "linear_glu": 1.0, "concat_fc": 0.0}


def cost(genotype: Genotype) -> float:
    reads = sum(int(name[-1]) for cell in genotype.cells for name in cell.inputs if name[-1].isdigit())
    return sum(COSTS[cell.steps[0].primitive] for cell in genotype.cells) - 0.5 * reads


def measure(genotype: Genotype, report: Report) -> dict[str, float]:
    return {"criterion": cost(genotype), "parameters": float(len(genotype.inputs_read()))}


def seen(study: FusionStudy) -> list[tuple[str, Any]]:
    return [(network.genotype.to_json(), network.values) for network in study.networks()]


def test_random_is_uniform_over_networks() -> None:
    study = FusionStudy(DEAD, "random", seed=3)
    study.run(measure, trials=720)
    size = DEAD.size()
    counts = Counter(network.genotype for network in study.networks())
    expected = 720 / size
    chi_square = sum((counts[genotype] - expected) ** 2 / expected for genotype in DEAD.enumerate())
    # Beyond 2.8 standard deviations of the chi-square distribution with size - 1 degrees of freedom: p < 0.01.
    assert abs(chi_square - (size - 1)) < 2.8 * (2 * (size - 1)) ** 0.5
    # Uniform over the ways to write a network, it would be far off.
    assert DEAD.raw_size() > 1.5 * size


def test_brute_force_tries_every_network_once() -> None:
    study = FusionStudy(DEAD, "brute_force")
    study.run(measure, trials=10_000)
    networks = [network.genotype for network in study.networks()]
    assert len(networks) == DEAD.size()
    assert set(networks) == set(DEAD.enumerate())
    assert study.best()[0].values == (min(map(cost, DEAD.enumerate())),)
    study.run(measure, trials=10_000)
    assert len(study.networks()) == DEAD.size()


def test_tpe_finds_better_networks_than_chance() -> None:
    found = {}
    for sampler in ("random", "tpe"):
        bests = []
        for seed in range(3):
            study = FusionStudy(LARGE, sampler, seed=seed)
            study.run(measure, trials=60)
            values = [network.values[0] for network in study.networks() if network.values]
            bests.append(sum(values[30:]) / 30)
        found[sampler] = sum(bests) / len(bests)
    assert found["tpe"] < found["random"] - 2.0


def test_nsga2_finds_the_front() -> None:
    space = FusionSpace(inputs=("a/0", "a/1", "b/0", "b/1"), cells=1)
    values = {genotype: (cost(genotype), float(len(genotype.inputs_read()))) for genotype in space.enumerate()}
    study = FusionStudy(space, "nsga2", ("criterion", "parameters"), options={"population_size": 10})
    study.run(lambda genotype, report: {**measure(genotype, report)}, trials=150)
    best = study.best()
    front = {v for v in values.values() if not any(o != v and o[0] <= v[0] and o[1] <= v[1] for o in values.values())}
    assert {network.values for network in best} == front
    assert {network.genotype for network in best} <= {genotype for genotype, v in values.items() if v in front}


def test_front_against_a_reference() -> None:
    study = FusionStudy(LARGE, "random", ("criterion", "parameters"))
    study.run(
        lambda g, _: {"criterion": cost(g), "parameters": float(sum(map(ord, g.cells[0].inputs[0])) % 5)}, trials=60
    )
    values = [network.values for network in study.networks() if network.values]
    reference = {v for v in values if not any(o != v and o[0] <= v[0] and o[1] <= v[1] for o in values)}
    assert [network.values for network in study.best()] == sorted(network.values or () for network in study.best())
    assert {network.values for network in study.best()} == reference
    assert {trial.number for trial in study.study.best_trials} >= {network.number for network in study.best()}


def test_no_network_is_measured_twice() -> None:
    measured: list[Genotype] = []

    def note(genotype: Genotype, report: Report) -> dict[str, float]:
        measured.append(genotype)
        return measure(genotype, report)

    study = FusionStudy(TINY, "tpe")
    study.run(note, trials=60)
    assert len(study.networks()) == 60
    assert len(measured) == len(set(measured)) <= TINY.size()
    first: dict[Genotype, int] = {}
    for network in study.networks():
        assert network.values == (cost(network.genotype),)
        assert network.same_as == first.get(network.genotype)
        first.setdefault(network.genotype, network.number)


def stop_after(count: int) -> Callable[[Genotype, Report], dict[str, float]]:
    """Ctrl-C in the middle of a trial."""
    calls = 0

    def measure_or_stop(genotype: Genotype, report: Report) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls > count:
            raise KeyboardInterrupt
        return measure(genotype, report)

    return measure_or_stop


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "storage"),
    [
        ("random", "sqlite:///{}/study.db"),
        ("tpe", "{}/study.log"),
        ("nsga2", "sqlite:///{}/study.db"),
        ("nsga2", "{}/study.log"),
        ("brute_force", "{}/study.log"),
    ],
)
def test_interrupted_study_goes_on_as_an_unbroken_one(sampler: Any, storage: str, tmp_path: Path) -> None:
    options = {"population_size": 4} if sampler == "nsga2" else {}
    space = DEAD if sampler == "brute_force" else LARGE
    whole = FusionStudy(space, sampler, seed=1, options=options)
    whole.run(measure, trials=14)

    def opened() -> FusionStudy:
        return FusionStudy(space, sampler, seed=1, storage=storage.format(tmp_path), options=options)

    with pytest.raises(KeyboardInterrupt):
        opened().run(stop_after(4), trials=14)
    assert opened().finished == 4
    opened().run(measure, trials=9)
    assert opened().finished == 9
    again = opened()
    again.run(measure, trials=14)
    again.run(measure, trials=14)
    assert seen(again) == seen(whole)
    other = FusionStudy(space, sampler, seed=2, options=options)
    other.run(measure, trials=14)
    assert seen(other) != seen(whole)


def test_interrupted_between_trials() -> None:
    whole, study = FusionStudy(LARGE, "tpe"), FusionStudy(LARGE, "tpe")
    whole.run(measure, trials=5)

    def stop(network: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study.run(measure, trials=5, done=stop)
    study.run(measure, trials=5)
    assert seen(study) == seen(whole)
    assert len(study.study.get_trials()) == 5


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_killed_while_it_was_proposed(sampler: Any) -> None:
    whole, study = FusionStudy(LARGE, sampler), FusionStudy(LARGE, sampler)
    whole.run(measure, trials=5)
    study.run(measure, trials=2)
    trial = study.study.ask()
    trial.set_user_attr("process", f"{os.uname().nodename}:{os.getpid()}")
    name, choices = next(iter(study._encoding.choices.items()))  # type: ignore[union-attr]
    trial.suggest_categorical(name, choices)
    study.run(measure, trials=5)
    assert seen(study) == seen(whole)


def test_failed_trial_comes_again() -> None:
    study = FusionStudy(LARGE, "random")
    tried: list[Genotype] = []

    def fail(genotype: Genotype, report: Report) -> dict[str, float]:
        tried.append(genotype)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        study.run(fail, trials=2)
    study.run(measure, trials=2)
    assert study.networks()[0].genotype == tried[0]
    assert len(study.networks()) == 2


def die(storage: str) -> None:
    def killed(genotype: Genotype, report: Report) -> dict[str, float]:
        os._exit(9)

    FusionStudy(LARGE, "random", storage=storage).run(killed, trials=2)


@pytest.mark.slow
def test_trial_of_a_killed_process_comes_again(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = FusionStudy(LARGE, "random", storage=storage)
    process = context().Process(target=die, args=(storage,))
    process.start()
    process.join()
    assert process.exitcode == 9
    (left,) = study.study.get_trials()
    assert left.state == TrialState.RUNNING
    study.run(measure, trials=3)
    assert study.networks()[0].params == left.params
    assert [trial.state for trial in study.study.get_trials()] == [TrialState.FAIL] + [TrialState.COMPLETE] * 3
    whole = FusionStudy(LARGE, "random")
    whole.run(measure, trials=3)
    assert seen(study) == seen(whole)


def test_trials_of_living_processes_and_other_machines_are_left_alone() -> None:
    study = FusionStudy(LARGE, "random")
    for process in (f"{os.uname().nodename}:{os.getppid()}", f"another-machine:{os.getpid()}", "nonsense"):
        study.study.ask().set_user_attr("process", process)
    study.run(measure, trials=2)
    states = [trial.state for trial in study.study.get_trials()]
    assert states == [TrialState.RUNNING] * 3 + [TrialState.COMPLETE] * 2


def work(storage: str, seed: int) -> None:
    FusionStudy(LARGE, "tpe", seed=seed, storage=storage).run(measure, trials=24)


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    FusionStudy(LARGE, "tpe", storage=storage)
    processes = [context().Process(target=work, args=(storage, 0)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    study = FusionStudy(LARGE, "tpe", storage=storage)
    trials = study.study.get_trials()
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    assert study.finished in (24, 25)  # the last one may have begun when the other finished
    # The same seed, but different places in the study: the starting points differ.
    assert len({network.genotype for network in study.networks()}) > 20


def test_another_search_is_refused_by_name(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    FusionStudy(LARGE, "random", storage=storage, facts={"steps": 70, "data": {"root": "x"}}).run(measure, trials=1)
    same = FusionStudy(LARGE, "tpe", storage=storage, facts={"steps": 70, "data": {"root": "x"}})
    assert same.finished == 1
    with pytest.raises(
        StudyError, match=r"of another search \(steps: 70 there, 50 here\); choose another name or storage"
    ):
        FusionStudy(LARGE, storage=storage, facts={"steps": 50, "data": {"root": "x"}})
    with pytest.raises(StudyError, match=r"data.root: 'x' there, 'y' here"):
        FusionStudy(LARGE, storage=storage, facts={"steps": 70, "data": {"root": "y"}})
    with pytest.raises(StudyError, match=r"space.cells: 3 there, 2 here"):
        FusionStudy(TINY, storage=storage, facts={"steps": 70, "data": {"root": "x"}})
    with pytest.raises(StudyError, match=r"objectives: \['criterion'\] there, \['parameters'\] here"):
        FusionStudy(LARGE, "tpe", ("parameters",), storage=storage, facts={"steps": 70, "data": {"root": "x"}})
    foreign = optuna.create_study(storage=storage, study_name="theirs")
    foreign.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(StudyError, match="not made by this package"):
        FusionStudy(LARGE, storage=storage, name="theirs")
    FusionStudy(TINY, storage=storage, name="ours").run(measure, trials=1)
    with pytest.raises(StudyError, match="encoding: 'choices' there, 'number of the network' here"):
        FusionStudy(TINY, "brute_force", storage=storage, name="ours")
    assert FusionStudy(LARGE, storage=storage, facts={"steps": 70, "data": {"root": "x"}}).finished == 1


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no sampler 'grid'; accepted: random, tpe, nsga2, brute_force"):
        FusionStudy(TINY, "grid")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="no pruner 'often'; accepted: none, median, hyperband"):
        FusionStudy(TINY, pruner="often")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match=r"stops trials by one objective, but there are \['a', 'b'\]"):
        FusionStudy(TINY, objectives=("a", "b"), pruner="median")
    with pytest.raises(StudyError, match="one or more different names"):
        FusionStudy(TINY, objectives=("a", "a"))
    with pytest.raises(StudyError, match="'speed' is not measured; accepted: criterion, parameters"):
        FusionStudy(TINY, objectives=("speed",)).run(measure, trials=1)
    large = FusionSpace(inputs=tuple("abcdefgh"), cells=3)
    with pytest.raises(GenotypeError, match="can be tried one by one"):
        FusionStudy(large, "brute_force")


def test_bad_storages_are_named(tmp_path: Path) -> None:
    for bad in ("study.db", "nonsense", ""):
        with pytest.raises(StudyError, match=f"'{bad}' is no storage; accepted: sqlite:///FILE.db"):
            FusionStudy(TINY, storage=bad)
    with pytest.raises(StudyError, match="cannot open storage nowhere://x"):
        FusionStudy(TINY, storage="nowhere://x")
    with pytest.raises(StudyError, match="unable to open database file"):
        FusionStudy(TINY, storage=f"sqlite:///{tmp_path}/missing/study.db")
    (tmp_path / "damaged.db").write_text("this is not a database, and long enough to be read as one" * 20)
    with pytest.raises(StudyError, match="not a database"):
        FusionStudy(TINY, storage=f"sqlite:///{tmp_path}/damaged.db")
    with sqlite3.connect(tmp_path / "begun.db") as database:  # a process that was killed while it made the tables
        database.execute("CREATE TABLE studies (study_id INTEGER PRIMARY KEY)")
    with pytest.raises(StudyError, match="interrupted while it was made, must be deleted, or choose another") as begun:
        FusionStudy(TINY, storage=f"sqlite:///{tmp_path}/begun.db")
    assert "kept" not in str(begun.value)
    with pytest.raises(StudyError) as caught:
        FusionStudy(TINY, storage="nowhere://user:secret@host/base")
    assert "secret" not in str(caught.value)
    assert "user:***@host" in str(caught.value)


def test_storage_that_fails_on_the_way_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = FusionStudy(LARGE, "random", storage=f"sqlite:///{path}")
    study.run(measure, trials=3)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE trial_params RENAME TO lost")
    with pytest.raises(StudyError, match=r"fails: .*no such table.*; finished trials are kept"):
        study.run(measure, trials=6)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE lost RENAME TO trial_params")
    assert FusionStudy(LARGE, "random", storage=f"sqlite:///{path}").finished == 3


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruners_stop_the_worse_trials(pruner: Any) -> None:
    ran: dict[Genotype, int] = {}

    def learn(genotype: Genotype, report: Report) -> dict[str, float]:
        for step in range(1, 10):
            ran[genotype] = step
            report(step, cost(genotype) + 1 / step)
        return measure(genotype, report)

    study = FusionStudy(LARGE, "random", pruner=pruner, steps=9)
    study.run(learn, trials=40)
    stopped = [network for network in study.networks() if network.values is None]
    whole = [network for network in study.networks() if network.values is not None]
    assert len(stopped) + len(whole) == 40
    assert len(stopped) >= 5
    assert all(ran[network.genotype] == 9 for network in whole)
    assert sum(ran.values()) < 9 * 40 * 0.9
    mean_whole = sum(cost(network.genotype) for network in whole) / len(whole)
    assert mean_whole < sum(cost(network.genotype) for network in stopped) / len(stopped)


def test_pruners_by_name() -> None:
    assert isinstance(build_pruner("none", 10), optuna.pruners.NopPruner)
    assert isinstance(build_pruner("median", 10), optuna.pruners.MedianPruner)
    assert isinstance(build_pruner("hyperband", 10), optuna.pruners.HyperbandPruner)


def test_values_that_are_not_finite_never_win() -> None:
    study = FusionStudy(TINY, "brute_force")

    def diverge(genotype: Genotype, report: Report) -> dict[str, float]:
        reads = genotype.cells[0].steps[0].primitive == "sum"
        return {"criterion": float("nan") if reads else cost(genotype)}

    study.run(diverge, trials=100)
    networks = study.networks()
    assert len(networks) == TINY.size()
    lost = [network for network in networks if network.values is None]
    assert 0 < len(lost) < len(networks)
    assert all(network.measured == {"criterion": None} for network in lost)
    assert study.best()[0].genotype.cells[0].steps[0].primitive == "attention"


def test_optuna_speaks_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    FusionStudy(TINY, "random").run(measure, trials=2)
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr() == ("", "")

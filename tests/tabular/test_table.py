"""The table: what it answers, against a small one that can be checked by eye, and its file."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_mmnas import FusionSpace, FusionTable
from lightning_mmnas.errors import GenotypeError, TableError
from lightning_mmnas.tabular.collecting import collect

SPACE = FusionSpace(inputs=("image", "text"), cells=1, channels=4, length=4)  # 5 networks
CARD: dict[str, Any] = {
    "space": json.loads(SPACE.model_dump_json()),
    "command": "mmnas tabulate toy",
    "baselines": {"late_fusion": {"supervised": 0.5}},
}
ACCURACY = {0: (0.5, 0.7), 1: (0.9, 0.7), 2: (0.2, 0.2), 4: (0.6, 0.6)}  # network 3 is not there


def records() -> list[dict[str, Any]]:
    return [
        {"index": index, "seed": seed, "supervised": values[seed], "nt_xent": 3.0 - values[seed], "parameters": index}
        for index, values in ACCURACY.items()
        for seed in (0, 1)
    ]


def table() -> FusionTable:
    return FusionTable.from_records(records(), CARD)


def test_asking() -> None:
    genotypes = list(SPACE.enumerate())
    asked = table()
    assert len(asked) == 4
    assert asked.seeds == (0, 1)
    assert [genotype in asked for genotype in genotypes] == [True, True, True, False, True]
    assert asked.value(genotypes[0], "supervised") == pytest.approx(0.6)
    (first, value), (second, _) = asked.best("supervised", 2)
    assert (first, second) == (genotypes[1], genotypes[0])  # of equals the first one
    assert value == pytest.approx(0.8)
    assert asked.best("nt_xent")[0][0] == genotypes[1]  # lower is better
    assert [asked.rank(genotypes[i], "supervised") for i in (0, 1, 2, 4)] == [2, 1, 4, 2]
    assert asked.percentile(genotypes[1], "supervised") == pytest.approx(100 * 3.5 / 4)
    assert asked.percentile(genotypes[0], "supervised") == pytest.approx(100 * 2 / 4)
    assert asked.regret(genotypes[2], "supervised") == pytest.approx(0.6)
    assert asked.regret_of(0.9, "supervised") == pytest.approx(-0.1)
    assert asked.baselines["late_fusion"]["supervised"] == 0.5
    assert asked.value(genotypes[0], "supervised", seed=1) == pytest.approx(0.7)
    assert asked.percentile_of(0.7, "supervised", seed=1) == pytest.approx(100 * 3 / 4)
    with pytest.raises(TableError, match="no seed 7"):
        asked.values("supervised", 7)


def test_what_is_missing_is_never_the_best() -> None:
    found = [row for row in records() if (row["index"], row["seed"]) != (1, 1)]
    assert [g for g, _ in FusionTable.from_records(found, CARD).best("supervised", 1)] == [next(SPACE.enumerate())]


def test_noise_leaves_what_a_seed_does_to_all_alike_out() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3000, 1)) + np.array([[0.0, 5.0, 1.0]]) + 0.3 * generator.normal(size=(3000, 3))
    found = [
        {"index": i, "seed": s, "supervised": values[i, s]} for i in range(3000) for s in range(3)
    ]  # more rows than networks: nothing looks at the space here
    assert FusionTable.from_records(found, CARD).noise("supervised") == pytest.approx(0.3, rel=0.05)


def test_correlation() -> None:
    generator = np.random.default_rng(1)
    accuracy = generator.normal(size=400)
    loss = -accuracy + generator.normal(size=400)
    found = [{"index": i, "seed": 0, "supervised": accuracy[i], "nt_xent": loss[i]} for i in range(400)]
    asked = FusionTable.from_records(found, CARD)
    rho = asked.correlation("nt_xent", "supervised")
    assert rho.value == pytest.approx(stats.spearmanr(-loss, accuracy).statistic)
    assert rho.low < rho.value < rho.high
    assert rho.high - rho.low == pytest.approx(2 * 1.96 * (1 - rho.value**2) / 20, rel=0.35)  # about its normal width
    tau = asked.correlation("nt_xent", "supervised", "kendall", rows=range(100), resamples=0)
    assert tau.value == pytest.approx(stats.kendalltau(-loss[:100], accuracy[:100]).statistic)
    assert np.isnan(tau.low)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    table().save(path)
    back = FusionTable.load(path)
    assert back.space == SPACE
    assert back.card["command"] == "mmnas tabulate toy"
    assert back.baselines == table().baselines
    for name, values in table().columns.items():
        np.testing.assert_allclose(back.columns[name], values, rtol=1e-6)


def test_what_is_not_there() -> None:
    asked = table()
    with pytest.raises(GenotypeError, match="not among the 4 of 5 architectures"):
        asked.value(list(SPACE.enumerate())[3], "supervised")
    other = SPACE.model_copy(update={"channels": 8})
    with pytest.raises(GenotypeError, match="channels differ"):
        asked.value(next(other.enumerate()), "supervised")
    with pytest.raises(TableError, match="no column 'finetune_3'; it has"):
        asked.values("finetune_3")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no table nowhere; the shipped ones are"):
        FusionTable.load("nowhere")
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(TableError, match=r"bad\.parquet is not a table"):
        FusionTable.load(path)
    beyond = [{**row, "index": row["index"] + 10} for row in records()]
    FusionTable.from_records(beyond, CARD).save(path)
    with pytest.raises(TableError, match="architecture 14 of a space of 5"):
        FusionTable.load(path)
    good = tmp_path / "good.parquet"
    table().save(good)
    content = bytearray(good.read_bytes())
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):  # a damaged file is refused, or read with other numbers, never a traceback
        damaged = bytearray(content)
        for place in torch.randint(len(content), (5,), generator=generator).tolist():
            damaged[place] = 255 - damaged[place]
        path.write_bytes(damaged)
        with suppress(TableError):
            FusionTable.load(path)


def test_collecting_takes_whole_architectures(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    (tmp_path / "card.json").write_text(json.dumps({key: CARD[key] for key in ("space", "command")}))
    with pytest.raises(TableError, match="no architecture"):
        collect(tmp_path)
    for seed in (0, 1):
        rows = [{"index": i, "seed": seed, "supervised": 0.5} for i in ((0, 2) if seed == 0 else (0,))]
        (tmp_path / "blocks" / f"00000-{seed}.json").write_text(json.dumps(rows))
        baselines = [{"name": "late_fusion", "supervised": 0.4 + 0.2 * seed}]
        (tmp_path / f"baselines-{seed}.json").write_text(json.dumps(baselines))
    found = collect(tmp_path)
    assert found.indices == (0,)
    assert found.baselines == {"late_fusion": {"supervised": pytest.approx(0.5)}}
    (tmp_path / "blocks" / "00000-1.json").write_text("{")
    with pytest.raises(TableError, match=r"cannot read .*00000-1\.json"):
        collect(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "NaN",
        "[]",
        "{}",
        "[1]",
        '[{"name": "late_fusion", "index": 0, "seed": "x"}]',
        '[{"index": -1, "seed": 0, "supervised": 0.5}]',
        '[{"index": 1.5, "seed": 0, "supervised": 0.5}]',
        '[{"index": null, "seed": null, "supervised": null}]',
    ],
)
def test_collecting_tells_files_that_are_no_rows(content: str, tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    whole = {
        "card.json": {key: CARD[key] for key in ("space", "command")},
        "blocks/00000-0.json": [{"index": 0, "seed": 0, "supervised": 0.5}],
        "baselines-0.json": [{"name": "late_fusion", "supervised": 0.5}, {"name": "raw_features"}],
    }
    for name, value in whole.items():
        (tmp_path / name).write_text(json.dumps(value))
    assert collect(tmp_path).indices == (0,)
    for name in list(whole)[1:]:
        (tmp_path / name).write_text(content)
        with pytest.raises(TableError, match=f"{name} holds no rows of this table; delete it and run"):
            collect(tmp_path)
        (tmp_path / name).write_text(json.dumps(whole[name]))
    (tmp_path / "blocks" / "00001-0.json").write_text('[{"index": 1000000, "seed": 0, "supervised": 0.5}]')
    with pytest.raises(TableError, match=r"blocks holds architecture 1000000 of a space of \d+; delete its file"):
        collect(tmp_path)
    (tmp_path / "blocks" / "00001-0.json").unlink()
    (tmp_path / "baselines-1.json").write_text('[{"name": "late_fusion", "supervised": 0.5}]')
    with pytest.raises(TableError, match=r"baselines-1\.json holds no rows of this table"):  # of fewer rivals
        collect(tmp_path)
    (tmp_path / "baselines-1.json").unlink()
    (tmp_path / "card.json").write_text(content if content != "{}" else "1")
    with pytest.raises(TableError, match=r"card\.json says nothing of a table; delete"):
        collect(tmp_path)

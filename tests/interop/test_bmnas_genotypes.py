"""BM-NAS's genotypes, read from the text of its logs and never evaluated."""

import ast
from pathlib import Path

import pytest

from lightning_mmnas import FusionSpace, Genotype
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.interop import bmnas

INPUTS = ["image/0", "image/1", "text/0", "text/1"]

STEP0 = "StepGenotype(inner_edges=[('skip', 1), ('skip', 0)], inner_steps=['ScaleDotAttn'], inner_concat=[2])"
STEP1 = "StepGenotype(inner_edges=[('skip', 0), ('skip', 1)], inner_steps=['LinearGLU'], inner_concat=[2])"
EDGES = "[('skip', 0), ('skip', 2), ('skip', 1), ('skip', 3)]"
TEXT = f"Genotype(edges={EDGES}, concat=[4, 5], steps=[{STEP0}, {STEP1}])"


def parse(text: str, inputs: list[str] | None = None) -> Genotype:
    return bmnas.parse_genotype(text, inputs or INPUTS, channels=8, length=4)


def expected() -> Genotype:
    space = FusionSpace(inputs=tuple(INPUTS), cells=2, steps=1, channels=8, length=4)
    return Genotype(
        space=space,
        cells=(
            {"inputs": ("image/0", "text/0"), "steps": [{"inputs": ("y", "x"), "primitive": "attention"}]},
            {"inputs": ("image/1", "text/1"), "steps": [{"inputs": ("x", "y"), "primitive": "linear_glu"}]},
        ),  # type: ignore[arg-type]
        compatibility="bmnas",
    )


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"2021-08-01 12:00:00,123 INFO epoch 3 | genotype = {TEXT} | dev f1 0.61",
        TEXT.replace(", ", ",\n    "),
        TEXT.replace("concat=[4, 5]", "concat=range(4, 6)"),
        TEXT.replace("inner_concat=[2]", "inner_concat=range(2, 3)"),
        TEXT.replace("[", "(").replace("]", ",)"),
        f"Genotype(broken [ ; then {TEXT}",
        f"unfinished: Genotype(edges=[('skip', 0)\n{TEXT}",
        f"StepGenotype() was replaced by {TEXT}",
        TEXT + "\n" + TEXT.replace("LinearGLU", "Sum"),  # the first one counts
    ],
)
def test_genotype_is_found_in_text(text: str) -> None:
    assert parse(text).model_dump() == expected().model_dump()


def test_several_steps_and_earlier_states() -> None:
    step = (
        "StepGenotype(inner_edges=[('skip', 0), ('skip', 1), ('skip', 2), ('skip', 1)], "
        "inner_steps=['Sum', 'ConcatFC'], inner_concat=[2, 3])"
    )
    genotype = parse(f"Genotype(edges=[('skip', 0), ('skip', 1)], concat=[2], steps=[{step}])", ["a", "b"])
    assert genotype.space.steps == genotype.space.step_outputs == 2
    assert [(s.inputs, s.primitive) for s in genotype.cells[0].steps] == [
        (("x", "y"), "sum"),
        (("step0", "y"), "concat_fc"),
    ]


def test_dead_cells_are_kept() -> None:
    genotype = parse(TEXT.replace("concat=[4, 5]", "concat=[5]"))
    assert genotype.space.cell_outputs == 1
    assert len(genotype.cells) == 2
    assert genotype.modalities_read() == {"image", "text"}
    assert genotype.inputs_read() == {"image/1", "text/1"}


def test_space_may_hold_other_primitives() -> None:
    genotype = bmnas.parse_genotype(TEXT, INPUTS, 8, 4, primitives=("zero", "attention", "linear_glu"))
    assert genotype.space.primitives == ("zero", "attention", "linear_glu")


MALICIOUS = [
    "Genotype(edges=__import__('os').system('touch {flag}'), concat=[4, 5], steps=[])",
    "Genotype(__import__('os').system('touch {flag}'))",
    "Genotype(edges=[open('{flag}', 'w')], concat=[4, 5], steps=[])",
    "Genotype(edges=[x for x in [open('{flag}', 'w')]], concat=[4, 5], steps=[])",
    "Genotype(**{{'edges': open('{flag}', 'w')}})",
    "Genotype(edges=range(open('{flag}', 'w')), concat=[4, 5], steps=[])",
    "Genotype(edges=(lambda: open('{flag}', 'w'))(), concat=[4, 5], steps=[])",
    "Genotype(edges=f\"{{open('{flag}', 'w')}}\", concat=[4, 5], steps=[])",
    "Genotype(edges=os.StepGenotype(x=open('{flag}', 'w')), concat=[4, 5], steps=[])",
]


@pytest.mark.parametrize("text", MALICIOUS)
def test_malicious_text_is_refused_and_never_evaluated(text: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    text = text.format(flag=flag)
    ast.parse(text, mode="eval")  # the text would do harm if it were evaluated
    with pytest.raises(GenotypeError, match="is not a plain value"):
        parse(text)
    assert not flag.exists()


@pytest.mark.parametrize(
    "value",
    [
        "range(0, 10**9)",
        "range(0, 10000000000)",
        "range(1, 2, 3)",
        "range(-5)",
        "range(stop=3)",
        "[0] * 10**9",
        "1.5",
        "-1",
        "None",
        "{0: 1}",
        "name",
    ],
)
def test_only_plain_values_are_read(value: str) -> None:
    with pytest.raises(GenotypeError, match="is not a plain value"):
        parse(TEXT.replace("[4, 5]", value))


@pytest.mark.parametrize("value", ["-" * 900 + "1", "1" + "+1" * 600, "a" + ".b" * 600, "[" * 90 + "]" * 90])
def test_deep_nesting_is_refused(value: str) -> None:
    with pytest.raises(GenotypeError, match="BM-NAS genotype"):
        parse(f"Genotype(edges={value}, concat=[4, 5], steps=[{STEP0}, {STEP1}])")


def test_text_without_a_genotype() -> None:
    for text in ("", "no genotype here", "Genotype(", "StepGenotype(inner_steps=[])", "Genotype(" * 50):
        with pytest.raises(GenotypeError, match="no BM-NAS genotype found: the text must hold 'Genotype"):
            parse(text)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (TEXT, "Genotype()", "missing or malformed part 'steps'"),
        (f"edges={EDGES}, ", "", "missing or malformed part 'edges'"),
        ("concat=[4, 5], ", "", "missing or malformed part 'concat'"),
        (", inner_concat=[2]", "", "missing or malformed part 'inner_concat'"),
        ("inner_steps=['LinearGLU'], ", "", "missing or malformed part 'inner_steps'"),
        ("inner_edges=[('skip', 0), ('skip', 1)], ", "", "missing or malformed part 'inner_edges'"),
        (f"[{STEP0}, {STEP1}]", "[]", "missing or malformed part"),
        (f"[{STEP0}, {STEP1}]", "7", "missing or malformed part"),
        (f"[{STEP0}, {STEP1}]", STEP0, "missing or malformed part"),
        (EDGES, "7", "missing or malformed part"),
        (EDGES, "[0, 1, 2, 3]", "missing or malformed part"),
        (EDGES, "[('skip', 'a'), ('skip', 1), ('skip', 1), ('skip', 3)]", "missing or malformed part"),
        (", ('skip', 3)]", "]", "edges: 3 given, but there must be two per step, 4"),
        ("('skip', 3)]", "('skip', 3), ('skip', 2)]", "edges: 5 given, but there must be two per step, 4"),
        ("('skip', 3)", "('skip', 9)", r"steps\[1\]: index 9 is out of range, 5 states exist \(4 inputs were named\)"),
        ("('skip', 0), ('skip', 2)", "('skip', 2), ('skip', 0)", r"cells\[0\].inputs: .* first"),
        ("('skip', 1), ('skip', 0)]", "('skip', 1), ('skip', 1)]", "'y' twice; give two different names"),
        ("[('skip', 1), ('skip', 0)]", "[('skip', 1)]", r"steps\[0\].inner_edges: 1 given"),
        ("('skip', 1), ('skip', 0)]", "('skip', 1), ('skip', 2)]", "'step0' cannot be read here"),
        (
            "'LinearGLU'",
            "'Conv'",
            r"primitives \['Conv'\] are not in \['ConcatFC', 'LinearGLU', 'ScaleDotAttn', 'Sum'\]",
        ),
        ("[4, 5]", "[4]", r"concat: \[4\] are not the last of 6 states"),
        ("[4, 5]", "[]", r"concat: \[\] are not the last of 6 states"),
        ("inner_concat=[2]", "inner_concat=[1, 2]", "step_outputs: 2 is more than steps"),
        ("inner_concat=[2]", "inner_concat=[0]", r"steps\[0\].inner_concat: \[0\] are not the last of 3 states"),
    ],
)
def test_missing_and_wrong_parts_are_named(old: str, new: str, reason: str) -> None:
    assert old in TEXT
    with pytest.raises(GenotypeError, match=reason):
        parse(TEXT.replace(old, new))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_wrong_number_of_inputs_is_noticed(count: int) -> None:
    with pytest.raises(GenotypeError, match="check that all input features were named"):
        parse(TEXT, [*INPUTS, "audio/0"][:count])

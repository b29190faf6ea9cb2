"""What is shown of a run: bars, lines, and about how long it will take."""

import io
import time

import pytest
from rich.console import Console

from lightning_mmnas.report import progress as shown
from lightning_mmnas.report.progress import RunProgress, activity


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines_are_few_and_tell_the_time(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    with RunProgress(console, ["encoders", "search"]) as run, run.stage("search"):
        with activity("training 4 candidates", 100, "steps") as begun:
            for _ in range(100):
                clock[0] += 1
                begun.advance()
        run.say("done")
    lines = _text(console).splitlines()
    assert len(lines) == 5
    assert all(line[2] == ":" and line[5] == ":" for line in lines)
    assert lines[0].endswith("search 2/2 begins")
    assert lines[1].endswith("search 2/2  training 4 candidates, 31/100 steps")
    assert lines[-1].endswith(" done")


def _interrupted(console: Console) -> None:
    with RunProgress(console, ["search"]) as run, run.stage("search"):
        with activity("supernet", 10, "batches") as begun:
            begun.update(4, "supernet, epoch 1/2", "train/loss 1.0")
            with activity("feature cache", 1000, "encodings") as inner:
                inner.advance(500)
                begun.advance()  # not shown: something else is being done
        raise KeyboardInterrupt


def test_a_bar_on_a_terminal_that_is_gone_afterwards() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(console)
    text = _text(console)
    for word in ("search 1/1", "supernet, epoch 1/2", "train/loss 1.0", "500/1,000 encodings"):
        assert word in text
    assert "begins" not in text
    assert text.endswith("\x1b[1A\x1b[2K")  # up, and the line erased


def test_the_time_left_goes_by_the_work_of_the_stages(clock: list[float]) -> None:
    run = RunProgress(Console(file=io.StringIO()), ["a", "b", "c"])
    run.workload = lambda samples: {"a": [samples], "b": [2 * samples, samples], "c": [4 * samples]}
    with run:
        with run.stage("a"):
            clock[0] += 10
        with run.stage("b"):
            with activity("first", 10, "steps", part=0) as first:
                clock[0] += 20
                first.update(10)
                assert run.left() is None  # of how many samples?
                run.samples = 100
                first.update(10)
            assert run.left() == pytest.approx(20 / 2 + 30 / 3 * 4)  # a third of b is left, and all of c
            with activity("second", 10, "steps", part=1) as second:
                clock[0] += 10
                second.update(5)
            assert run.left() == pytest.approx(30 / 5 + 40 / 3.5 * 4)
        run.finished("c", 3.0)
        with run.stage("b"), activity("first", 10, "steps", part=0) as first:
            clock[0] += 6
            first.update(10)
            assert run.left() == pytest.approx(6 / 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (2.0, "about 10 s left"),
        (34.0, "about 30 s left"),
        (250.0, "about 4 min left"),
        (9000.0, "about 2.5 h left"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert shown._duration(seconds) == text


def test_without_a_run_and_a_terminal_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with activity("feature cache", 3, "encodings") as begun:
        begun.advance(2)
    assert begun.share == pytest.approx(2 / 3)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_without_a_run_there_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(shown, "Console", lambda stderr: console)
    with activity("feature cache", 3, "encodings", shown=False):
        pass
    assert _text(console) == ""
    with activity("feature cache", 3, "encodings") as begun:
        begun.advance(2)
    assert "2/3 encodings" in _text(console)

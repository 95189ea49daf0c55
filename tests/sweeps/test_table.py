"""The table of a sweep, at 80 columns and where there is no terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from memspan.evaluation import Evaluation
from memspan.sweeps import SweepRun, table
from memspan.sweeps.status import Status
from memspan.sweeps.table import Board


def text_of(board: Board, most: int | None = None) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(board.table(most))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.fixture
def board(runs: list[SweepRun]) -> Board:
    return Board(runs, Console(width=80, file=io.StringIO()))


def printed(board: Board) -> str:
    return board.console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_every_state_has_its_line(board: Board, trained: Path) -> None:
    first, second = board.runs
    assert "2 runs: 0 done, 2 waiting; 0:00 elapsed" in text_of(board)
    second.folder.mkdir(parents=True)
    Status("training", 0.25, 0.5, 3.14, 8200, 75).write(second.folder)
    board.results[first.folder] = Evaluation.load(trained)
    lines = text_of(board)
    assert "2 runs: 1 done, 1 under way; 0:00 elapsed" in lines
    assert any(line.split()[:4] == ["lstm", "0", "done", "100%"] for line in lines)
    row = ["lstm", "1", "training", "25%", "0.500", "3.1", "8.20k", "1:15"]
    assert any(line.split() == row for line in lines)
    board.failed[second.folder] = "on fire"
    assert any(line.split() == ["lstm", "1", "failed"] for line in text_of(board))


def test_environments_are_told_where_there_are_several(board: Board, runs: list[SweepRun]) -> None:
    assert not any("environment" in line for line in text_of(board))
    other = SweepRun(runs[0].config, runs[0].folder.parents[2] / "Portal-v0" / "lstm" / "0", 1, 0)
    board.runs = [*runs, other]
    lines = text_of(board)
    assert any("environment" in line for line in lines)
    assert any(line.split()[:2] == ["Portal-v0", "lstm"] for line in lines)


def test_a_long_table_keeps_what_is_under_way(board: Board, runs: list[SweepRun], trained: Path) -> None:
    folder = runs[0].folder.parent
    board.runs = [SweepRun(runs[0].config, folder / str(i), 1, 0) for i in range(40)]
    for run in board.runs[:20]:
        board.results[run.folder] = Evaluation.load(trained)
    at_work = board.runs[30]
    at_work.folder.mkdir(parents=True)
    Status("evaluating", 0.5).write(at_work.folder)
    lines = text_of(board, 10)
    assert "and 31 more" in lines
    assert sum(line.split()[:1] == ["lstm"] for line in lines) == 9
    assert any("evaluating" in line for line in lines)


def test_without_a_terminal_there_are_lines(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.open()
    assert printed(board) == "2 runs: 0 done, 2 waiting; 0:00 elapsed\n"
    run = board.runs[0]
    run.folder.mkdir(parents=True)
    Status("training", 0.25, 0.5, 3.14, 8200, 75).write(run.folder)
    board.update()
    assert printed(board).count("\n") == 1
    monkeypatch.setattr(table, "SECONDS_BETWEEN_LINES", 0.0)
    board.open()
    board.update()
    assert printed(board).splitlines()[-1] == (
        "  Corridor-v0/lstm/0: 25%, score 0.500, effective memory 3.1, 8.20k steps/s, 1:15 left"
    )
    board.close()
    assert "training" in printed(board)
    assert "\x1b" not in printed(board)

"""Several processes learn what one would have learnt."""

from pathlib import Path

import numpy as np
import processes
import pytest
import shared_learning
import torch
from shared_learning import CASES, N_ENVS, N_ROLLOUTS, N_STEPS

WORK = "shared_learning:learn"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict]]]:
    """Every case, learnt by two processes."""
    folder = tmp_path_factory.mktemp("two")
    calls = [(WORK, {"case": case, "path": str(folder / case)}) for case in CASES]
    told = processes.results(processes.start(calls))
    return folder, {case: [told[rank][index] for rank in range(2)] for index, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(case: str, two, tmp_path: Path) -> None:
    folder, told = two
    alone = shared_learning.learn(case, str(tmp_path / "alone"))
    before, after, drawn = shared_learning.read(tmp_path / "alone-0")
    first, second = (shared_learning.read(folder / f"{case}-{rank}") for rank in range(2))
    for name, value in after.items():
        moved = (value - before[name]).abs().max() if value.is_floating_point() else 0
        assert torch.equal(before[name], first[0][name]), name
        assert torch.equal(first[1][name], second[1][name]), f"{name} differs between the processes"
        assert torch.allclose(first[1][name], value, rtol=1e-4, atol=1e-5), (name, moved)
    assert torch.equal(first[2], drawn)
    for one in told[case]:
        assert one["timesteps"] == alone["timesteps"] == N_ENVS * N_STEPS * N_ROLLOUTS
        assert one["n_updates"] == alone["n_updates"]
        # Returns of continuous actions differ by rounding.
        np.testing.assert_allclose(one["episodes"], alone["episodes"], rtol=1e-6)
        assert one["recorded"] == pytest.approx(alone["recorded"], rel=1e-3, abs=1e-4)

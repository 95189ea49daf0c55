"""What a step returned is written again when nobody holds it, and never sooner."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from memspan.envs import PortalVectorEnv

N = 6


def play(engine: PortalVectorEnv, steps: int, seed: int) -> Any:
    """What the last of some steps returned."""
    actions = np.random.default_rng(seed).integers(0, 4, (steps, N))
    for row in actions:
        last = engine.step(row)
    return last


@pytest.fixture
def engine() -> PortalVectorEnv:
    engine = PortalVectorEnv(N, num_rooms=3, room_size=3)
    engine.reset(seed=1)
    return engine


def address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_arrays_that_nobody_holds_are_used_again(engine: PortalVectorEnv) -> None:
    """In a loop that forgets what the step before returned, two sets are enough."""
    seen = {address(play(engine, 1, seed)[0]) for seed in range(50)}
    assert len(seen) == 2


HOLDS: dict[str, Callable[[Any], tuple[Any, Callable[[Any], Any]]]] = {
    "observations": lambda out: (out[0], np.copy),
    "part of the observations": lambda out: (out[0][2:4, 1:], np.copy),
    "rewards": lambda out: (out[1], np.copy),
    "part of the rewards": lambda out: (out[1][::2], np.copy),
    "terminated": lambda out: (out[2], np.copy),
    "part of terminated": lambda out: (out[2][1:], np.copy),
    "truncated": lambda out: (out[3][:3].reshape(3, 1), np.copy),
    "infos": lambda out: (out[4], copy.deepcopy),
    "told": lambda out: (out[4]["rooms_reached"][-2:], np.copy),
    "last observations": lambda out: (out[4]["final_obs"][0], np.copy),
    "mask of the ends": lambda out: (out[4]["final_info"], copy.deepcopy),
    "memoryview": lambda out: (memoryview(out[0]), bytes),
    "tensor": lambda out: (torch.from_numpy(out[0]), torch.Tensor.tolist),
}


@pytest.mark.parametrize("held", HOLDS)
def test_what_is_held_stays_as_it_is(engine: PortalVectorEnv, held: str) -> None:
    """By whatever refers to a part of it, and to nothing else."""
    out = play(engine, 1, seed=0)
    while "final_obs" not in out[4]:
        out = play(engine, 1, seed=int(engine.get_state()["step_count"].sum()))
    thing, copied = HOLDS[held](out)
    then = copied(thing)
    del out
    play(engine, 200, seed=1)
    np.testing.assert_equal(copied(thing), then)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_a_copy_of_an_engine_goes_on_by_itself(engine: PortalVectorEnv, duplicate: Any) -> None:
    play(engine, 10, seed=0)
    other = duplicate(engine)
    ours = play(engine, 100, seed=2)
    theirs = play(other, 100, seed=2)
    for one, two in zip(ours[:4], theirs[:4], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(ours[4]["rooms_reached"], theirs[4]["rooms_reached"])
    for field, values in engine.get_snapshot().items():
        np.testing.assert_array_equal(values, other.get_snapshot()[field])

"""How far an agent without memory gets in Portal: success 0.0065 at most with ten rooms.

The argument. Without memory, every visit to a room is the same game over again: the agent stands in the
middle, and the chance q that it leaves by the west door depends on nothing but what the room looks like
(`test_looking_the_same_does_not_depend_on_what_is_right`). Which door is right is drawn independently of the
looks, so a visit leads on with chance q or 1 - q, either equally likely, and always the same one for the same
room of an episode.

Reaching the last room with e_k mistakes in room k (0 or 1 each) takes 1 + e_(k+1) + e_(k+2) + ... passes
through room k, because every mistake further on leads back to the first room; and the last visit to it is a
pass. So with p passes and e mistakes, room k contributes

    W(p, e) = C(p - 1 + e, e) * (q^p (1 - q)^e + (1 - q)^p q^e) / 2

and success is the sum over all e of the product over rooms. Time limits only make it less.
"""

from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from memspan.envs import PortalVectorEnv

LEFT, RIGHT = 2, 0


def success_of(leaves_west: npt.NDArray[np.float64], max_mistakes: int = 2) -> float:
    """Success of an agent that leaves room k (of all but the last) by the west door with a given chance."""
    weights = {0: 1.0}  # of all mistakes in the rooms from k + 1 on, by their number
    for q in leaves_west[::-1]:
        with_room: dict[int, float] = {}
        for further, weight in weights.items():
            passes = 1 + further
            for mistakes in range(max_mistakes):
                chance = (q**passes * (1 - q) ** mistakes + (1 - q) ** passes * q**mistakes) / 2
                chance *= comb(passes - 1 + mistakes, mistakes)
                with_room[further + mistakes] = with_room.get(further + mistakes, 0) + weight * chance
        weights = with_room
    return sum(weights.values())


def best_success(num_rooms: int) -> tuple[float, npt.NDArray[np.float64]]:
    """The best over all chances, one for each room: more than rooms that look alike allow."""
    found = [
        minimize(
            lambda q: -success_of(q),
            np.random.default_rng(seed).random(num_rooms - 1),
            bounds=[(0, 1)] * (num_rooms - 1),
        )
        for seed in range(8)
    ]
    best = min(found, key=lambda one: one.fun)
    return -best.fun, best.x


@pytest.mark.parametrize(("num_rooms", "limit"), [(2, 0.75), (3, 0.5), (5, 0.1678), (10, 0.0065)])
def test_best_success_without_memory(num_rooms: int, limit: float) -> None:
    best, _ = best_success(num_rooms)
    assert best == pytest.approx(limit, rel=0.005)
    rng = np.random.default_rng(0)
    assert max(success_of(rng.random(num_rooms - 1)) for _ in range(2000)) <= best + 1e-9


@pytest.mark.parametrize("num_rooms", [2, 3, 5])
def test_the_engine_agrees(num_rooms: int) -> None:
    """40,000 episodes of the best agent without memory: success within 4 standard deviations."""
    expected, leaves_west = best_success(num_rooms)
    num_envs, per_env = 2000, 20
    engine = PortalVectorEnv(num_envs, num_rooms, max_steps=10_000)
    engine.reset(seed=1)
    rng = np.random.default_rng(2)
    left = np.full(num_envs, per_env)
    wins = 0
    side = np.full(num_envs, LEFT)
    while left.any():
        state = engine.get_state()
        entered = state["x"] == engine.room_size // 2
        west = rng.random(num_envs) < leaves_west[state["room"]]
        side = np.where(entered, np.where(west, LEFT, RIGHT), side)
        *_, terminated, truncated, infos = engine.step(side)
        assert not truncated.any()
        wins += int((infos["success"] & (left > 0)).sum())
        left -= terminated & (left > 0)
    episodes = num_envs * per_env
    assert abs(wins / episodes - expected) < 4 * np.sqrt(expected * (1 - expected) / episodes)

"""How far an agent without memory gets in Portal: success 0.0065 at most with ten rooms.

The argument. Without memory, every visit to a room is the same game over again: the agent stands in the
middle, and the chance q that it leaves by the west door depends on nothing but what the room looks like
(`test_what_is_seen_does_not_depend_on_what_is_right`). Which door is right is drawn independently of the
looks, so a visit leads on with chance q or 1 - q, either equally likely, and always the same one for the same
room of an episode.

Reaching the last room with e_k mistakes in room k (0 or 1 each) takes 1 + e_(k+1) + e_(k+2) + ... passes
through room k, because every mistake further on leads back to the first room; and the last visit to it is a
pass. So with p passes and e mistakes, room k contributes

    W(p, e) = C(p - 1 + e, e) * (q^p (1 - q)^e + (1 - q)^p q^e) / 2

and success is the sum over all e of the product over rooms. Time limits only make it less.
"""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from memspan.envs import PortalVectorEnv

LEFT, RIGHT = 2, 0
Floats = npt.NDArray[np.float64]


def success_of(leaves_west: Floats) -> tuple[float, Floats]:
    """Success of an agent that leaves room k (of all but the last) by the west door with a given chance.

    Returns:
        Success, and its derivative by each of the chances.
    """
    # Weights of all mistakes in the rooms from k + 1 on, by their number, from the last room to the first.
    weights = [np.ones(1)]
    for q in leaves_west[::-1]:
        clean, mistaken, _, _ = _room(q, len(weights[-1]))
        without, with_one = weights[-1] * clean, weights[-1] * mistaken
        weights.append(np.append(without, 0) + np.append(0, with_one))
    # And back: how much success a weight is worth.
    worth, slopes = np.ones(len(weights[-1])), np.zeros(len(leaves_west))
    for k, q in enumerate(leaves_west):
        before = weights[len(leaves_west) - 1 - k]
        clean, mistaken, clean_slope, mistaken_slope = _room(q, len(before))
        slopes[k] = (before * (clean_slope * worth[:-1] + mistaken_slope * worth[1:])).sum()
        worth = clean * worth[:-1] + mistaken * worth[1:]
    return float(weights[-1].sum()), slopes


def _room(q: float, n: int) -> tuple[Floats, Floats, Floats, Floats]:
    """W(p, 0) and W(p, 1) for p = 1 .. n, and their derivatives by q."""
    p, r = np.arange(1, n + 1), 1 - q
    clean, mistaken = (q**p + r**p) / 2, p * (q**p * r + r**p * q) / 2
    a, b = p * q ** (p - 1), p * r ** (p - 1)
    return clean, mistaken, (a - b) / 2, p * (a * r - q**p - b * q + r**p) / 2


def best_success(num_rooms: int, starts: int = 8) -> tuple[float, Floats]:
    """The best over all chances, one for each room: more than rooms that look alike allow."""

    def loss(q: Floats) -> tuple[float, Floats]:
        # The logarithm, because the success itself may be too small for an optimiser.
        success, slopes = success_of(q)
        return -np.log(success), -slopes / success

    found = [
        minimize(
            loss,
            np.random.default_rng(seed).random(num_rooms - 1),
            jac=True,
            bounds=[(1e-9, 1 - 1e-9)] * (num_rooms - 1),
        )
        for seed in range(starts)
    ]
    best = min(found, key=lambda one: one.fun)
    return float(np.exp(-best.fun)), best.x


@pytest.mark.parametrize(
    ("num_rooms", "limit", "starts"),
    [(2, 0.75, 8), (3, 0.5, 8), (5, 0.1677, 8), (10, 0.00648, 8), (50, 8.2e-15, 2)],
)
def test_best_success_without_memory(num_rooms: int, limit: float, starts: int) -> None:
    best, _ = best_success(num_rooms, starts)
    assert best == pytest.approx(limit, rel=0.002)
    rng = np.random.default_rng(0)
    tried = 2000 if num_rooms <= 10 else 100
    assert max(success_of(rng.random(num_rooms - 1))[0] for _ in range(tried)) <= best * (1 + 1e-6)


@pytest.mark.parametrize(("num_rooms", "worth"), [(3, 0.75), (10, 10 / 512)])
def test_a_reflex_that_is_shown_the_previous_reward(num_rooms: int, worth: float) -> None:
    """West in a room just reached for the first time, else east: n / 2 ** (n - 1).

    It succeeds where no room with an east door that is right comes after one with a west door.
    """
    num_envs = 40_000
    engine = PortalVectorEnv(num_envs, num_rooms)
    engine.reset(seed=1)
    left, wins = np.ones(num_envs, dtype=bool), 0
    rewards, starts, side = np.zeros(num_envs), np.ones(num_envs, dtype=bool), np.full(num_envs, LEFT)
    while left.any():
        entered = engine.get_state()["x"] == engine.room_size // 2
        # On the way to a door the previous action says which way to go on.
        side = np.where(entered, np.where((rewards > 0) | starts, LEFT, RIGHT), side)
        _, rewards, terminated, _, infos = engine.step(side)
        wins += int((infos["success"] & left).sum())
        left &= ~terminated
        starts = terminated
    assert abs(wins / num_envs - worth) < 4 * np.sqrt(worth * (1 - worth) / num_envs)


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

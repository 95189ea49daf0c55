"""Infos that are made when they are read are those that would have been made at once."""

from typing import Any

import numpy as np
import pytest

from memspan.agents import VecEnvAdapter
from memspan.envs import PortalVectorEnv

N = 4


class Rewriting(PortalVectorEnv):
    """Is taken for an environment that may write again what it has returned."""

    never_rewrites = False


def adapter(kind: type[PortalVectorEnv]) -> VecEnvAdapter:
    env = VecEnvAdapter(kind(N, num_rooms=3, room_size=3, max_steps=20))
    env.seed(5)
    env.reset()
    return env


def play(env: VecEnvAdapter, steps: int) -> list[Any]:
    actions = np.random.default_rng(0).integers(0, 4, (steps, N))
    return [env.step(row) for row in actions]


def test_late_and_early_infos_are_the_same() -> None:
    """Read after all steps, the late ones too; everything else is the same as well."""
    late, early = play(adapter(PortalVectorEnv), 300), play(adapter(Rewriting), 300)
    ended = cut = 0
    for (*arrays, infos), (*others, expected) in zip(late, early, strict=True):
        assert isinstance(expected, list)
        assert not isinstance(infos, list)
        for one, two in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
        assert len(infos) == N
        for info, other in zip(infos, expected, strict=True):
            for told in (info, other):
                told.get("episode", {}).pop("t", None)
            np.testing.assert_equal(info, other)
            ended += "episode" in info
            cut += info.get("TimeLimit.truncated", False)
    assert 20 < cut < ended


def test_they_can_be_used_like_a_list_of_dictionaries() -> None:
    infos = play(adapter(PortalVectorEnv), 1)[0][3]
    infos[2]["mine"] = 1
    assert infos[2]["mine"] == infos[-2]["mine"] == list(infos)[2]["mine"] == 1
    assert "mine" not in infos[1]
    assert [sorted(info) for info in infos[1:3]] == [
        ["rooms_reached", "success"],
        ["mine", "rooms_reached", "success"],
    ]
    assert repr(infos) == repr(list(infos))
    with pytest.raises(IndexError):
        infos[N]


def test_returns_are_those_of_the_episode() -> None:
    env = adapter(PortalVectorEnv)
    returns, lengths, ended = np.zeros(N), np.zeros(N, int), 0
    for _, rewards, dones, infos in play(env, 300):
        returns += rewards
        lengths += 1
        for row in np.flatnonzero(dones):
            assert (infos[row]["episode"]["r"], infos[row]["episode"]["l"]) == (returns[row], lengths[row])
            returns[row] = lengths[row] = 0
            ended += 1
    assert ended > 20
    snapshot = env.get_snapshot()
    assert snapshot is not None
    np.testing.assert_array_equal(snapshot["returns"], returns)
    np.testing.assert_array_equal(snapshot["lengths"], lengths)

"""Portal's rules, in the form to read and in the engine."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from minigrid.wrappers import FullyObsWrapper

from memspan.envs import PortalEnv, PortalVectorEnv
from memspan.envs.portal_rules import SIDES, most_steps, steps_per_room

RIGHT, DOWN, LEFT, UP = range(4)
THROUGH_EAST, THROUGH_WEST = [RIGHT] * 3, [LEFT] * 3


def make(right_door: str = "eee", **kwargs: Any) -> PortalEnv:
    """Four rooms, their right doors given by their letters."""
    env = PortalEnv(num_rooms=len(right_door) + 1, **kwargs)
    sides = [{"e": "east", "w": "west"}[letter] for letter in right_door]
    env.reset(seed=0, options={"right_door": sides})
    return env


def walk(env: PortalEnv, actions: list[int]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    for action in actions:
        last = env.step(action)
    return last


def test_the_right_doors_lead_to_the_last_room() -> None:
    env = make("ewe")
    _, reward, terminated, _, info = walk(env, THROUGH_EAST)
    assert (reward, terminated, info) == (1.0, False, {"success": False, "rooms_reached": 2})
    walk(env, THROUGH_WEST)
    _, reward, terminated, truncated, info = walk(env, THROUGH_EAST)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"success": True, "rooms_reached": 4}


def test_a_wrong_door_leads_to_the_first_room_and_rooms_pay_once() -> None:
    env = make("ewe")
    walk(env, THROUGH_EAST)
    _, reward, terminated, _, info = walk(env, THROUGH_EAST)
    assert (reward, terminated, info["rooms_reached"], env.room) == (0.0, False, 2, 0)
    _, reward, *_ = walk(env, THROUGH_EAST)
    assert (reward, env.room) == (0.0, 1)
    _, reward, *_ = walk(env, THROUGH_WEST)
    assert (reward, env.room) == (1.0, 2)


def test_the_agent_enters_in_the_middle() -> None:
    for size in (3, 5, 7):
        env = make("eee", room_size=size)
        walk(env, [UP] + [RIGHT] * (size // 2))
        walk(env, [DOWN, RIGHT])
        assert env.get_state() | {"red_door": None, "right_door": None, "mistakes": None} == {
            "room": 1,
            "x": size // 2,
            "y": size // 2,
            "step_count": size // 2 + 3,
            "rooms_reached": 2,
            "red_door": None,
            "right_door": None,
            "mistakes": None,
        }


def test_walls_hold() -> None:
    env = make()
    walk(env, [UP] * 5 + [LEFT] * 5)
    assert (env.get_state()["x"], env.get_state()["y"], env.room) == (0, 0, 0)
    walk(env, [DOWN] * 9 + [RIGHT] * 9)
    assert (env.get_state()["x"], env.get_state()["y"], env.room) == (4, 4, 0)


def test_two_mistakes_in_a_room_end_the_episode() -> None:
    env = make("eww")
    walk(env, THROUGH_WEST)  # first mistake in room 0
    walk(env, THROUGH_EAST + THROUGH_EAST)  # first mistake in room 1
    assert env.get_state()["mistakes"].tolist() == [1, 1, 0]
    _, reward, terminated, truncated, info = walk(env, THROUGH_WEST)
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)


@pytest.mark.parametrize(("allowed", "ends_after"), [(1, 1), (3, 3), (None, None)])
def test_how_many_mistakes_are_too_many(allowed: int | None, ends_after: int | None) -> None:
    env = make("e", max_mistakes_per_room=allowed, max_steps=300)
    ended = [walk(env, THROUGH_WEST)[2] for _ in range(ends_after or 20)]
    assert ended == [False] * (len(ended) - 1) + [ends_after is not None]


def test_the_step_limit_truncates_and_leaves_room_for_the_worst_luck() -> None:
    env = make("e", max_steps=6)
    *_, terminated, truncated, info = walk(env, [UP, DOWN, UP, DOWN, RIGHT, RIGHT])
    assert (terminated, truncated, info["success"]) == (False, True, False)
    # The last step counts: an episode that ends in it has terminated.
    env = make("e", max_steps=7)
    *_, terminated, truncated, info = walk(env, [UP, DOWN, UP, DOWN, *THROUGH_EAST])
    assert (terminated, truncated, info["success"]) == (True, False, True)
    # All first guesses wrong: as many steps as perfect memory can need.
    env = make("eee")
    for room in range(3):
        walk(env, THROUGH_EAST * room + THROUGH_WEST)
    walk(env, THROUGH_EAST * 3)
    assert env.step_count == most_steps(4, 5) == env.max_steps // 2
    assert steps_per_room(5) == 3


def test_only_the_first_room_looks_different() -> None:
    env = make("eee", view_size=7)
    looks = []
    for room in range(3):
        for red in (0, 1):
            state = env.get_state()
            env.set_state(state | {"room": room, "red_door": np.full(3, red)})
            looks.append(env.gen_obs()["image"])
    first, others = looks[:2], looks[2:]
    assert not np.array_equal(*first)
    np.testing.assert_array_equal(others[0], others[2])
    np.testing.assert_array_equal(others[1], others[3])
    assert not any(np.array_equal(one, other) for one in first for other in others)


@pytest.mark.parametrize("form", [PortalEnv, PortalVectorEnv])
@pytest.mark.parametrize("room_size", [3, 5])
def test_labels_tell_rooms_apart_from_every_cell(form: Any, room_size: int) -> None:
    """No view of a room, from any of its cells and whatever its doors, is a view of another room."""
    env = form(num_rooms=51, room_size=room_size, room_labels=True)
    env.reset(seed=0)
    state = env.get_state()
    state["rooms_reached"] = np.full_like(state["rooms_reached"], 50)
    rooms_of: dict[bytes, set[int]] = {}
    for room, x, y, red in product(range(50), range(room_size), range(room_size), (0, 1)):
        for field, value in {"room": room, "x": x, "y": y, "red_door": red}.items():
            state[field] = np.full_like(state[field], value)
        seen = env.set_state(state)
        seen = env.gen_obs()["image"] if form is PortalEnv else seen[0]
        rooms_of.setdefault(seen.tobytes(), set()).add(room)
    # The last room is seen once, from the middle, when it is reached.
    middle = np.full_like(state["x"], room_size // 2)
    env.set_state(state | {"room": np.full_like(middle, 49), "x": middle, "y": middle})
    side = state["right_door"].ravel()[49]
    for _ in range(room_size // 2 + 1):
        seen = env.step(0 if side else 2) if form is PortalEnv else env.step([0 if side else 2])
    assert np.all(seen[2])
    last = seen[0]["image"] if form is PortalEnv else seen[4]["final_obs"][0]
    rooms_of.setdefault(last.tobytes(), set()).add(50)
    assert all(len(rooms) == 1 for rooms in rooms_of.values())
    assert set.union(*rooms_of.values()) == set(range(51))


def test_what_is_seen_does_not_depend_on_what_is_right() -> None:
    """Nor on anything else that is to be remembered."""
    engine = PortalVectorEnv(1000)
    engine.reset(seed=0)
    state = engine.get_state()
    rng = np.random.default_rng(0)
    state |= {field: rng.integers(0, 5, 1000) for field in ("x", "y")} | {"room": rng.integers(0, 9, 1000)}
    state["rooms_reached"] = state["room"] + 1
    seen = engine.set_state(state)
    other = state | {"right_door": 1 - state["right_door"], "rooms_reached": np.full(1000, 9)}
    other |= {"mistakes": 1 - state["mistakes"], "step_count": rng.integers(0, 300, 1000)}
    np.testing.assert_array_equal(engine.set_state(other), seen)


def test_minigrids_wrappers_work_on_it() -> None:
    image = FullyObsWrapper(PortalEnv()).reset(seed=0)[0]["image"]
    assert image.shape == (7, 7, 3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_rooms": 1}, "num_rooms must be an integer from 2 to 10,000, got 1"),
        ({"num_rooms": 2.0}, "num_rooms must be an integer from 2 to 10,000, got 2.0"),
        ({"num_rooms": 10_001}, "num_rooms must be an integer from 2 to 10,000, got 10001"),
        (
            {"num_rooms": 52, "room_labels": True},
            "num_rooms must be at most 51 with room_labels, got 52",
        ),
        ({"room_labels": 1}, "room_labels must be True or False, got 1"),
        ({"view_size": 3.0}, "view_size must be 3, 5 or 7, got 3.0"),
        ({"room_size": 4}, "room_size must be an odd integer >= 3, got 4"),
        ({"room_size": 1}, "room_size must be an odd integer >= 3, got 1"),
        ({"view_size": 4}, "view_size must be 3, 5 or 7, got 4"),
        ({"max_mistakes_per_room": 0}, "max_mistakes_per_room must be None or an integer >= 1, got 0"),
        (
            {"num_rooms": 3, "max_steps": 14},
            "max_steps must be None or an integer >= 15, what perfect memory can need with 3 rooms "
            "of size 5, got 14",
        ),
    ],
)
@pytest.mark.parametrize("form", [PortalEnv, PortalVectorEnv])
def test_wrong_parameters(form: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        form(**kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, "options: unknown field 'length', allowed are 'right_door' and 'red_door'"),
        (
            {"right_door": ["up"] * 9},
            r"options\['right_door'\] must be 'west' or 'east' for every room, got \['up'",
        ),
        (
            {"red_door": ["west"] * 8},
            r"options\['red_door'\] must be of shape \(9,\), got shape \(8,\)",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PortalEnv().reset(options=options)


def test_wrong_actions() -> None:
    env = make()
    for action in (4, -1, 1.0, "right"):
        with pytest.raises(ValueError, match="action must be 0, 1, 2 or 3, got"):
            env.step(action)


def test_options_leave_other_draws_alone() -> None:
    env = PortalEnv()
    env.reset(seed=3)
    drawn = env.get_state()
    env.reset(seed=3, options={"right_door": ["east"] * 9})
    assert env.get_state()["right_door"].tolist() == [SIDES.index("east")] * 9
    np.testing.assert_array_equal(env.get_state()["red_door"], drawn["red_door"])


def test_pictures_have_one_shape() -> None:
    env = make("eww", render_mode="rgb_array")
    shapes = {env.render().shape}  # type: ignore[union-attr]
    for action in THROUGH_WEST + THROUGH_EAST * 2:
        env.step(action)
        shapes.add(env.render().shape)  # type: ignore[union-attr]
    assert len(shapes) == 1

"""The Corridor's rules, parameters, pictures and wrappers, in the form to read."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid import wrappers
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from memspan.envs import CorridorEnv
from memspan.envs.moves import Moves

RIGHT, DOWN, LEFT, UP = Moves.right, Moves.down, Moves.left, Moves.up
EMPTY, WALL = (1, 0, 0), (2, 5, 0)
RED_BALL, BLUE_BALL = (6, 0, 0), (6, 2, 0)
RED_DOOR, BLUE_DOOR = (4, 0, 1), (4, 2, 1)


def see(env: CorridorEnv) -> list[list[tuple[int, ...]]]:
    """The view as people write it: rows from above to below."""
    image = env.gen_obs()["image"]
    return [[tuple(int(n) for n in cell) for cell in row] for row in image.swapaxes(0, 1)]


def test_what_is_to_be_seen_on_the_way() -> None:
    env = CorridorEnv()
    env.reset(options={"length": 4, "cue": "blue"})
    assert see(env) == [[WALL] * 3, [BLUE_BALL, EMPTY, EMPTY], [WALL] * 3]
    env.step(RIGHT)
    assert see(env) == [[WALL] * 3, [EMPTY, EMPTY, EMPTY], [WALL] * 3]
    env.step(RIGHT)
    assert see(env) == [[WALL, WALL, RED_DOOR], [EMPTY, EMPTY, EMPTY], [WALL, WALL, BLUE_DOOR]]
    env.step(RIGHT)
    assert see(env) == [[WALL, RED_DOOR, WALL], [EMPTY, EMPTY, WALL], [WALL, BLUE_DOOR, WALL]]


def test_what_is_to_be_seen_with_a_wider_view() -> None:
    env = CorridorEnv(min_length=4, view_size=5)
    env.reset(options={"length": 4, "cue": "red", "red_door": "down"})
    assert see(env) == [[WALL] * 5, [WALL] * 5, [RED_BALL, WALL, EMPTY, EMPTY, EMPTY], [WALL] * 5, [WALL] * 5]
    env.step(RIGHT)
    assert see(env) == [
        [WALL] * 5,
        [WALL, WALL, WALL, WALL, BLUE_DOOR],
        [WALL, EMPTY, EMPTY, EMPTY, EMPTY],
        [WALL, WALL, WALL, WALL, RED_DOOR],
        [WALL] * 5,
    ]


@pytest.mark.parametrize("cue", ["red", "blue"])
@pytest.mark.parametrize("red_door", ["up", "down"])
@pytest.mark.parametrize("action", [UP, DOWN])
def test_doors(cue: str, red_door: str, action: Moves) -> None:
    env = CorridorEnv()
    env.reset(options={"length": 3, "cue": cue, "red_door": red_door})
    for _ in range(2):
        _, reward, terminated, truncated, info = env.step(RIGHT)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    _, reward, terminated, truncated, info = env.step(action)
    right = ((red_door == "up") == (action == UP)) == (cue == "red")
    assert (reward, terminated, truncated, info) == (float(right), True, False, {"success": right})
    assert env.get_state()["x"] == 2


@pytest.mark.parametrize("action", [LEFT, UP, DOWN])
def test_walls_and_cue_stop_the_agent(action: Moves) -> None:
    env = CorridorEnv()
    first, _ = env.reset(options={"length": 3})
    second, reward, terminated, truncated, _ = env.step(action)
    np.testing.assert_array_equal(first["image"], second["image"])
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.get_state()["x"] == 0
    assert env.get_state()["step_count"] == 1


def test_direction_never_changes() -> None:
    env = CorridorEnv(max_length=5)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(100):
        assert observation["direction"] == 0
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()


@pytest.mark.parametrize(("max_steps", "limit"), [(None, 10), (5, 5), (7, 7)])
def test_truncation(max_steps: int | None, limit: int) -> None:
    env = CorridorEnv(max_length=5, max_steps=max_steps)
    env.reset(seed=0)
    ends = [env.step(LEFT)[2:4] for _ in range(limit)]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]


def test_a_door_at_the_last_moment_is_no_truncation() -> None:
    env = CorridorEnv(max_length=3, max_steps=3)
    env.reset(seed=0)
    env.step(RIGHT)
    env.step(RIGHT)
    assert env.step(UP)[2:4] == (True, False)


@pytest.mark.parametrize("view_size", [3, 5, 7])
def test_cue_is_visible_from_the_start_only(view_size: int) -> None:
    env = CorridorEnv(min_length=view_size // 2 + 2, max_length=12, view_size=view_size)
    env.reset(seed=0)
    for length in range(env.min_length, 13):
        for x in range(length):
            for cue, colour in enumerate(("red", "blue")):
                env.set_state({"length": length, "cue": cue, "red_door": 0, "x": x, "step_count": 0})
                image = env.gen_obs()["image"]
                balls = image[image[:, :, 0] == OBJECT_TO_IDX["ball"]]
                doors = (image[:, :, 0] == OBJECT_TO_IDX["door"]).sum()
                assert [int(ball[1]) for ball in balls] == ([COLOR_TO_IDX[colour]] if x == 0 else [])
                assert doors == (2 if length - 1 - x <= view_size // 2 else 0)
                assert not (len(balls) and doors)


def test_layouts_repeat_with_the_seed() -> None:
    env = CorridorEnv(shuffle_doors=True)

    def layouts(seed: int) -> list[dict[str, int]]:
        env.reset(seed=seed)
        found = []
        for _ in range(20):
            found.append(env.get_state())
            env.reset()
        return found

    assert layouts(3) == layouts(3)
    assert layouts(3) != layouts(4)


def test_options_fix_what_they_name_and_leave_the_rest_to_the_seed() -> None:
    env = CorridorEnv(shuffle_doors=True)
    env.reset(seed=8)
    drawn = env.get_state()
    env.reset(seed=8, options={"length": 17})
    assert env.get_state() == drawn | {"length": 17}
    env.reset(options={"cue": "blue", "red_door": "down", "length": 200})
    assert env.get_state() == {"length": 200, "cue": 1, "red_door": 1, "x": 0, "step_count": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 2}, r"options\['length'\] must be an integer from 3 to 20, got 2"),
        ({"length": 21}, r"options\['length'\] must be an integer from 3 to 20, got 21"),
        ({"length": 4.0}, r"options\['length'\] must be an integer from 3 to 20, got 4.0"),
        ({"length": True}, r"options\['length'\] must be an integer from 3 to 20, got True"),
        ({"length": None}, r"options\['length'\] must be an integer from 3 to 20, got None"),
        ({"length": [3, 4]}, r"options\['length'\] must be one value or of shape \(\), got shape \(2,\)"),
        ({"cue": "green"}, r"options\['cue'\] must be 'red' or 'blue', got 'green'"),
        ({"cue": 1}, r"options\['cue'\] must be 'red' or 'blue', got 1"),
        ({"cue": None}, r"options\['cue'\] must be 'red' or 'blue', got None"),
        ({"red_door": "left"}, r"options\['red_door'\] must be 'up' or 'down', got 'left'"),
        ({"colour": "red"}, r"unknown field 'colour', allowed are 'length', 'cue' and 'red_door'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorridorEnv(max_length=20).reset(options=options)


@pytest.mark.parametrize("action", [-1, 4, 1.0, None])
def test_wrong_action_changes_nothing(action: Any) -> None:
    env = CorridorEnv()
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=r"action must be 0, 1, 2 or 3, got "):
        env.step(action)
    assert env.get_state() == before


@pytest.mark.parametrize("action", [1, np.int32(1), np.array(1), Moves.down])
def test_actions_of_every_integer_type(action: Any) -> None:
    env = CorridorEnv()
    env.reset(options={"length": 3})
    env.step(RIGHT)
    env.step(RIGHT)
    assert env.step(action)[2]


MINIGRID_WRAPPERS = [
    wrappers.ImgObsWrapper,
    wrappers.OneHotPartialObsWrapper,
    wrappers.RGBImgObsWrapper,
    wrappers.RGBImgPartialObsWrapper,
    wrappers.FullyObsWrapper,
    wrappers.DictObservationSpaceWrapper,
    wrappers.FlatObsWrapper,
    wrappers.ViewSizeWrapper,
    wrappers.SymbolicObsWrapper,
    wrappers.ActionBonus,
    wrappers.PositionBonus,
]


@pytest.mark.parametrize("wrapper", MINIGRID_WRAPPERS, ids=lambda wrapper: wrapper.__name__)
def test_wrappers_of_minigrid(wrapper: Any) -> None:
    env = wrapper(CorridorEnv(max_length=6, render_mode="rgb_array"))
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    # MiniGrid's SymbolicObsWrapper gives wider integers than the space that it declares.
    check = wrapper is not wrappers.SymbolicObsWrapper
    for _ in range(40):
        if check:
            assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()


def test_helpers_of_minigrid_know_the_centred_view() -> None:
    env = CorridorEnv()
    env.reset(options={"length": 5})
    cue = env.agent_pos[0] - 1, 1
    assert env.in_view(*cue)
    assert env.relative_coords(*cue) == (0, 1)
    assert env.agent_sees(*cue)
    env.step(RIGHT)
    assert not env.in_view(*cue)
    assert not env.agent_sees(*cue)


@pytest.mark.parametrize("max_length", [3, 20, 40, 41, 60, 200])
@pytest.mark.parametrize("view_size", [3, 7])
def test_pictures_are_legible_and_of_one_shape(max_length: int, view_size: int) -> None:
    shortest = view_size // 2 + 2
    max_length = max(max_length, shortest)
    env = CorridorEnv(
        min_length=shortest, max_length=max_length, view_size=view_size, render_mode="rgb_array"
    )
    shapes = set()
    for length in (shortest, max_length):
        env.reset(options={"length": length, "cue": "blue"})
        start = env.render()
        assert start is not None
        assert start.dtype == np.uint8
        for _ in range(length - 1):
            env.step(RIGHT)
        end = env.render()
        assert end is not None
        shapes |= {start.shape, end.shape}
        # Pure red: the frame of the red door. Pure blue: the cue, once it is out of the highlighted view.
        assert (start == (255, 0, 0)).all(axis=-1).any()
        assert (end == (0, 0, 255)).all(axis=-1).any()
        assert not np.array_equal(start, end)
    (shape,) = shapes
    assert 500 <= shape[1] <= 1200
    assert 150 <= shape[0] <= 600


def test_point_of_view_and_no_picture() -> None:
    env = CorridorEnv(view_size=5, min_length=4, render_mode="rgb_array", agent_pov=True, tile_size=16)
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (80, 80, 3)
    silent = CorridorEnv()
    silent.reset(seed=0)
    assert silent.render() is None


def test_human_window_shows_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = CorridorEnv(max_length=5, render_mode="human")
    for _ in range(2):  # a window opens again after it has been closed
        env.reset(seed=0)
        env.step(RIGHT)
        assert env.window is not None
        assert env.window.get_size() == env.draw().shape[1::-1]
        env.close()
        assert env.window is None


def test_outcome_is_written_above_the_picture() -> None:
    env = CorridorEnv(max_length=3, render_mode="rgb_array")
    pictures = []
    for actions in ((RIGHT, RIGHT, UP), (RIGHT, RIGHT, DOWN), (RIGHT, RIGHT, RIGHT)):
        env.reset(options={"cue": "red"})
        for action in actions:
            env.step(action)
        pictures.append(env.render())
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


WRONG_PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"view_size": 4}, r"^view_size must be 3, 5 or 7, got 4$"),
    ({"view_size": 3.0}, r"^view_size must be 3, 5 or 7, got 3.0$"),
    ({"shuffle_doors": 1}, r"^shuffle_doors must be True or False, got 1$"),
    ({"view_size": 9}, r"^view_size must be 3, 5 or 7, got 9$"),
    ({"min_length": 2}, r"^min_length must be an integer >= 3 .*view_size 3\), got 2$"),
    ({"min_length": 4, "view_size": 7}, r"^min_length must be an integer >= 5 .*view_size 7\), got 4$"),
    ({"min_length": 3.0}, r"^min_length must be an integer >= 3 .*, got 3.0$"),
    ({"max_length": 2}, r"^max_length must be an integer >= min_length \(3\), got 2$"),
    ({"max_length": 20.0}, r"^max_length must be an integer >= min_length \(3\), got 20.0$"),
    ({"max_steps": 199}, r"^max_steps must be None or an integer >= max_length \(200\), got 199$"),
    ({"max_steps": 1e9}, r"^max_steps must be None or an integer >= max_length \(200\), got 1000000000.0$"),
]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize(("kwargs", "message"), WRONG_PARAMETERS)
def test_wrong_parameters(make: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("memspan:memspan/Corridor-v0", **kwargs)

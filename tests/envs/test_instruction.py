"""Instruction's words, rules, parameters and pages, in the form to read."""

import dataclasses
import inspect
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan.envs import InstructionEnv, InstructionVectorEnv
from memspan.envs.instruction_grammar import (
    CHARACTERS,
    OBJECTS,
    SENTENCE_LENGTH,
    SLOTS,
    TEMPLATES,
    VERBS,
    VOCABULARY,
    Kind,
    decode,
    encode,
)
from memspan.envs.instruction_rules import InstructionParameters
from memspan.envs.scripted_instruction import read_sentences

WAIT = 0
DISTRACTIONS = (Kind.OTHERS, Kind.ACTING, Kind.SCENERY, Kind.JOB)

ONE_KIND = {
    Kind.OTHERS: {"share_acting": 0, "share_scenery": 0, "share_jobs": 0},
    Kind.ACTING: {"share_others": 0, "share_scenery": 0, "share_jobs": 0},
    Kind.SCENERY: {"share_others": 0, "share_acting": 0, "share_jobs": 0},
    Kind.JOB: {"share_others": 0, "share_acting": 0, "share_scenery": 0},
}


def fill(template: str) -> str:
    return template.format(character="guard", other="cook", verb="mend", object="rug")


def test_words_of_the_lists_are_in_slots_only() -> None:
    lists = [*CHARACTERS, *VERBS, *OBJECTS]
    assert len(set(lists)) == len(lists) == 36
    for templates in TEMPLATES.values():
        for template in templates:
            words = template.split()
            assert not set(words) & set(lists)
            assert all(words.count(slot) <= 1 for slot in SLOTS)
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_which_slots_each_kind_has() -> None:
    for template in TEMPLATES[Kind.MOMENT]:
        assert "{" not in template
    for kind, templates in TEMPLATES.items():
        for template in templates:
            about_something = kind not in (Kind.SCENERY, Kind.MOMENT)
            assert ("{verb}" in template) == ("{object}" in template) == about_something
        assert len(set(templates)) == len(templates) >= 8


def test_no_sentence_can_be_read_in_two_ways() -> None:
    """Two templates with the same words outside of slots, and slots of the same kind, would be one."""
    shapes = [
        template.replace("{other}", "{character}")
        for templates in TEMPLATES.values()
        for template in templates
    ]
    assert len(set(shapes)) == len(shapes)
    for kind, templates in TEMPLATES.items():
        sentences = np.stack([encode(fill(template)) for template in templates])
        kinds, actions = read_sentences(sentences, 12)
        assert (kinds == kind).all()
        if kind not in (Kind.SCENERY, Kind.MOMENT):
            assert (actions == 1 + VERBS.index("mend") * 12 + OBJECTS.index("rug")).all()


def test_instructions_sound_like_other_kinds() -> None:
    """Every word of an instruction is also heard when nothing is to be remembered."""
    ours = {word for template in TEMPLATES[Kind.INSTRUCTION] for word in template.split()}
    others = {word for kind in DISTRACTIONS for template in TEMPLATES[kind] for word in template.split()}
    assert ours <= others


def test_encoding_and_decoding() -> None:
    for templates in TEMPLATES.values():
        for template in templates:
            numbers = encode(fill(template))
            assert numbers.shape == (SENTENCE_LENGTH,)
            assert decode(numbers) == fill(template)
    many = np.stack([encode("rain falls"), encode("the moon")])
    for env in (InstructionEnv(), InstructionVectorEnv(2)):
        assert env.vocabulary == VOCABULARY
        assert env.decode(many) == ["rain falls", "the moon"]
        assert env.decode(many[1]) == "the moon"
        assert env.action_meaning(0) == "wait"
        assert env.action_meaning(1) == "clean the lamp"
        assert env.action_meaning(np.int64(16)) == "mend the basket"
    assert InstructionEnv(num_verbs=2, num_objects=3).action_meaning(4) == "carry the lamp"


@pytest.mark.parametrize("kind", DISTRACTIONS)
def test_shares_of_nought_leave_one_kind(kind: Kind) -> None:
    env = InstructionEnv(**ONE_KIND[kind])
    env.reset(seed=0)
    kinds = set()
    for _ in range(300):
        kinds.add(env.kind)
        _, _reward, terminated, truncated, info = env.step(env.required_action)
        assert not truncated
        if terminated:
            assert info == {"success": True, "executed": 3}
            env.reset()
    assert kinds == {kind, Kind.INSTRUCTION, Kind.MOMENT}


def test_an_episode_from_beginning_to_end() -> None:
    """What is right and what it pays, worked out from the sentences and the times alone."""
    env = InstructionEnv(num_instructions=4, job_reward=0.25)
    for seed in range(30):
        observation, info = env.reset(seed=seed)
        assert info == {}
        pending: list[int] = []
        executed = 0
        terminated = False
        while not terminated:
            assert env.decode(observation) == env.sentence
            (kind,), (told,) = read_sentences(observation[None], 4)
            assert kind == env.kind
            if kind == Kind.INSTRUCTION:
                pending.append(int(told))
            right = int(told) if kind == Kind.JOB else pending.pop(0) if kind == Kind.MOMENT else WAIT
            executed += kind == Kind.MOMENT
            pays = {Kind.JOB: 0.25, Kind.MOMENT: 0.25}.get(kind, 0.0)
            observation, reward, terminated, truncated, info = env.step(right)
            assert (reward, truncated) == (pays, False)
            assert info == {"success": executed == 4, "executed": executed}
            assert terminated == (executed == 4)
        assert env.kind == Kind.MOMENT  # what was answered stays to be seen
        assert env.decode(observation) == env.sentence


@pytest.mark.parametrize("kind", list(Kind))
def test_anything_but_the_right_action_is_the_end(kind: Kind) -> None:
    env = InstructionEnv(num_verbs=2, num_objects=2)
    for wrong in range(5):
        env.reset(seed=3)
        while env.kind != kind:
            env.step(env.required_action)
            if env.executed == 3:
                env.reset()
        if wrong == env.required_action:
            continue
        before = env.get_state()
        observation, reward, terminated, truncated, info = env.step(wrong)
        assert (reward, terminated, truncated) == (0.0, True, False)
        assert info == {"success": False, "executed": before["executed"]}
        np.testing.assert_array_equal(observation, before["sentence"])


def test_order_matters() -> None:
    """At a moment, the action of a later instruction is as wrong as any."""
    env = InstructionEnv(num_instructions=2, max_gap=2, min_delay=5, max_delay=9)
    env.reset(seed=0, options={"instructions": [("mend", "lamp"), ("hide", "chest")]})
    while env.kind != Kind.MOMENT:
        env.step(env.required_action)
    assert [env.action_meaning(a) for a in env.get_state()["pending"]] == ["mend the lamp", "hide the chest"]
    _, reward, terminated, _, info = env.step(env.get_state()["pending"][1])
    assert (reward, terminated, info) == (0.0, True, {"success": False, "executed": 0})


def test_executions_go_first_and_one_after_the_other() -> None:
    env = InstructionEnv(num_instructions=5, max_gap=2, min_delay=3, max_delay=3, **ONE_KIND[Kind.SCENERY])
    waited = 0
    for seed in range(50):
        env.reset(seed=seed)
        terminated = False
        while not terminated:
            pending = env.instructions[env.executed :]
            if env.kind == Kind.MOMENT:
                assert pending[0].due <= env.step_count
            else:
                newest = pending[-1:] if env.kind == Kind.INSTRUCTION else []
                assert all(one.due > env.step_count for one in pending if one not in newest)
                if env.kind != Kind.INSTRUCTION and len(env.instructions) < 5:
                    assert env.next_instruction > env.step_count
            waited += env.kind == Kind.MOMENT and env.next_instruction == env.step_count
            _, _, terminated, _, _ = env.step(env.required_action)
    assert waited > 10


@pytest.mark.parametrize("maker", [InstructionEnv, lambda **kwargs: InstructionVectorEnv(1, **kwargs)])
def test_options_fix_the_instructions_and_leave_the_rest_to_the_seed(maker: Any) -> None:
    def story(options: dict[str, Any] | None) -> tuple[list[Any], list[int]]:
        env = maker(num_instructions=2, num_verbs=6, num_objects=6)
        env.reset(seed=5, options=options)
        kinds: list[Any] = []
        while True:
            state = env.get_state()
            kinds.append((int(np.ravel(state["kind"])[0]), env.decode(np.ravel(state["sentence"]))))
            required = state["required_action"]
            _, _, terminated, _, _ = env.step(required)
            if np.all(terminated):
                return kinds, np.ravel(state["instructions"]).tolist()
            if np.ravel(state["received"])[0] == 0 and options:
                assert np.ravel(state["instructions"]).all()

    free, drawn = story(None)
    fixed, given = story({"instructions": [("hide", "bench"), ("clean", "lamp")]})
    assert given == [1 + 2 * 6 + 4, 1] != drawn
    assert len(free) == len(fixed)
    for one, other in zip(free, fixed, strict=True):
        assert one == other or one[0] == other[0] == Kind.INSTRUCTION
    assert story({"instructions": [17, 1]}) == (fixed, given)
    assert story({"instructions": drawn}) == (free, drawn)
    assert story({}) == (free, drawn)


@pytest.mark.parametrize(
    "instructions",
    [
        [1],
        [1, 2, 3],
        [0, 1],
        [1, 5],
        [1.0, 2.0],
        [True, True],
        ["clean", "lamp"],
        [("clean", "lamp"), ("hide", "lamp")],
        [("clean", "lamp"), ("clean", "barrel")],
        [("clean", "lamp"), ("clean",)],
        "clean the lamp",
        7,
        None,
    ],
)
def test_wrong_instructions(instructions: Any) -> None:
    message = (
        r"^options\['instructions'\] must be 2 pairs of one of clean, carry and one of lamp, chest, "
        r"or 2 actions from 1 to 4, got "
    )
    kwargs: dict[str, Any] = {"num_instructions": 2, "num_verbs": 2, "num_objects": 2}
    for env in (InstructionEnv(**kwargs), InstructionVectorEnv(3, **kwargs)):
        with pytest.raises(ValueError, match=message):
            env.reset(options={"instructions": instructions})


def test_unknown_option() -> None:
    with pytest.raises(ValueError, match="unknown field 'length', allowed is 'instructions'"):
        InstructionEnv().reset(options={"length": 3})


@pytest.mark.parametrize("action", [-1, 17, 1.0, None])
def test_wrong_action_changes_nothing(action: Any) -> None:
    env = InstructionEnv()
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=r"^action must be from 0 to 16, got "):
        env.step(action)
    np.testing.assert_equal(env.get_state(), before)


def test_stories_repeat_with_the_seed_and_go_on_without_one() -> None:
    def story(env: InstructionEnv) -> list[str]:
        found = []
        for _ in range(20):
            found.append(env.sentence)
            env.reset()
        return found

    one, other = InstructionEnv(), InstructionEnv()
    one.reset(seed=3)
    other.reset(seed=3)
    first = story(one)
    assert story(other) == first
    one.reset(seed=4)
    assert story(one) != first
    assert len(set(first)) > 15
    one.reset()
    fresh = InstructionEnv()
    fresh.reset()
    assert story(one) != story(fresh)


def test_a_step_needs_a_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        InstructionEnv().step(0)


def test_state_can_be_taken_and_put_back() -> None:
    env, other = InstructionEnv(max_gap=12), InstructionEnv(max_gap=12)
    env.reset(seed=1)
    other.reset(seed=2)
    for _ in range(25):
        env.step(env.required_action)
    assert len(env.instructions) - env.executed >= 1
    other.set_state(env.get_state())
    np.testing.assert_equal(other.get_state(), env.get_state())
    while env.instructions[env.executed].due > env.step_count:
        env.step(env.required_action)
        other.step(other.required_action)
    assert env.required_action == other.required_action != WAIT


def test_text_tells_the_story() -> None:
    env = InstructionEnv(render_mode="ansi", max_gap=4, **ONE_KIND[Kind.SCENERY])
    env.reset(seed=1)
    while len(env.instructions) < 2:
        env.step(WAIT)
    text = env.render()
    lines = text.splitlines()
    assert lines[0] == f"Instruction    step {env.step_count}    executed 0 of 3"
    assert lines[-2].startswith(f">  {env.step_count:3d}  {env.sentence}")
    assert lines[-3].endswith("  [wait]")
    names = [env.action_meaning(one.action) for one in env.instructions]
    assert lines[-1] == "pending: " + ", ".join(names)
    env.step(env.required_action + 1)
    assert "wrong: it was time to wait" in env.render()
    assert "[clean the lamp, wrong]" in env.render()


def test_pictures_are_of_one_shape_and_show_how_it_ended() -> None:
    env = InstructionEnv(
        num_instructions=20, num_verbs=12, num_objects=12, max_gap=12, render_mode="rgb_array"
    )
    env.reset(seed=1)
    pictures = []
    terminated = False
    while not terminated:
        if env.step_count % 10 == 0:
            pictures.append(env.render())
        _, _, terminated, _, info = env.step(env.required_action)
    assert info["success"]
    good = env.render()
    env.reset(seed=1)
    env.step(env.required_action + 1)
    bad = env.render()
    assert len({picture.shape for picture in (good, bad, *pictures)}) == 1
    assert good.dtype == np.uint8
    assert (good[:45] == (20, 125, 60)).all(axis=-1).any()
    assert (bad[:45] == (190, 40, 40)).all(axis=-1).any()
    assert not np.array_equal(pictures[0], pictures[1])
    assert InstructionEnv().render() is None


def test_human_window_shows_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = InstructionEnv(render_mode="human")
    for _ in range(2):  # a window opens again after it has been closed
        env.reset(seed=0)
        env.step(env.required_action)
        assert env.window is not None
        assert env.window.get_size() == env.draw().shape[1::-1]
        env.close()
        assert env.window is None


def test_engine_has_the_same_parameters() -> None:
    declared = inspect.signature(InstructionVectorEnv).parameters
    for field in dataclasses.fields(InstructionParameters):
        assert declared[field.name].default == field.default
    assert set(declared) == {f.name for f in dataclasses.fields(InstructionParameters)} | {
        "num_envs",
        "render_mode",
    }


WRONG_PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"num_instructions": 0}, r"^num_instructions must be an integer from 1 to 10000, got 0$"),
    ({"num_instructions": 2.0}, r"^num_instructions must be an integer from 1 to 10000, got 2.0$"),
    ({"num_verbs": 0}, r"^num_verbs must be an integer from 1 to 12, got 0$"),
    ({"num_verbs": 13}, r"^num_verbs must be an integer from 1 to 12, got 13$"),
    ({"num_objects": 1}, r"^num_objects must be an integer from 2 to 12, got 1$"),
    ({"num_characters": 1}, r"^num_characters must be an integer from 2 to 12, got 1$"),
    ({"num_characters": True}, r"^num_characters must be an integer from 2 to 12, got True$"),
    ({"min_gap": 0}, r"^min_gap must be an integer >= 1, got 0$"),
    ({"max_gap": 3, "min_gap": 4}, r"^max_gap must be an integer >= 4 \(min_gap\), got 3$"),
    ({"min_delay": 0}, r"^min_delay must be an integer >= 1, got 0$"),
    ({"max_delay": 9, "min_delay": 10}, r"^max_delay must be an integer >= 10 \(min_delay\), got 9$"),
    ({"share_jobs": -0.1}, r"^share_jobs must be a number from 0 to 1,000,000, got -0.1$"),
    ({"share_others": float("nan")}, r"^share_others must be a number from 0 to 1,000,000, got nan$"),
    ({"share_acting": "some"}, r"^share_acting must be a number from 0 to 1,000,000, got 'some'$"),
    ({"job_reward": 1e300}, r"^job_reward must be a number from 0 to 1,000,000, got 1e\+300$"),
    ({"job_reward": -1}, r"^job_reward must be a number from 0 to 1,000,000, got -1$"),
    (
        {"share_others": 0, "share_acting": 0, "share_scenery": 0, "share_jobs": 0},
        r"^share_others, share_acting, share_scenery and share_jobs must not all be 0$",
    ),
]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize(("kwargs", "message"), WRONG_PARAMETERS)
def test_wrong_parameters(make: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("memspan:memspan/Instruction-v0", **kwargs)


def test_wrong_render_mode() -> None:
    with pytest.raises(
        ValueError, match=r"^render_mode must be None, 'human', 'rgb_array' or 'ansi', got 'x'"
    ):
        InstructionEnv(render_mode="x")

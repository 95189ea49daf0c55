"""Settings of every kind: refused in one line before work starts, or they work.

`HYPOTHESIS_PROFILE=long pytest tests/test_fuzz.py` tries many more.
"""

import dataclasses
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memspan.agents.faults import BadNumbersError
from memspan.envs import ENVIRONMENTS
from memspan.memory import MEMORIES, make_config, make_memory
from memspan.runs import RunConfig, make_env, make_model
from memspan.runs.checks import check_config
from memspan.runs.config import FIELDS
from memspan.runs.environments import environment_settings, environment_spec

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def bounded(examples: int) -> settings:
    return settings(
        max_examples=50 * examples if LONG else examples,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


BASE = RunConfig(
    memory="lstm",
    n_envs=2,
    n_steps=4,
    width=4,
    n_epochs=1,
    n_minibatches=1,
    device="cpu",
    env_kwargs={"max_length": 5},
)
ABSURD: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 63, 2**31, 2**63, 10**30, -(10**30), 10**400),
    *(-0.5, 0.5, 1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "x", "..", "a/b", "\0", "é", "x" * 5000, "os:system", "nowhere:X", "cpu", "lstm", "none", "skip"),
    *([], {}, (), {"a": 1}, {1: 2}, [1], b"x", Path("x")),
]
VALUES = st.sampled_from(ABSURD) | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=5)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What asks for gigabytes fails here, and does not swallow the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def is_refused(config: RunConfig) -> bool:
    try:
        check_config(config)
    except ValueError:
        return True
    return False


def learns(config: RunConfig) -> None:
    """One rollout and one update; numbers that leave all bounds are allowed to say so."""
    model = make_model(config)
    try:
        model.learn(1)
    except BadNumbersError:
        rates_and_weights = [
            one.name for one in dataclasses.fields(config) if one.name.endswith(("_rate", "_coef"))
        ]
        assert any((getattr(config, name) or 0) > 1e3 for name in ("first_preference", *rates_and_weights))
    finally:
        model.get_env().close()


@bounded(200)
@given(field=st.sampled_from(FIELDS), value=VALUES)
@example("width", 10**9)
@example("width", 10**30)
@example("n_envs", 2**31 - 1)
@example("n_steps", 2**31 - 1)
@example("stats_window_size", 10**30)
@example("threads", 10**9)
@example("learning_rate", 1e300)
@example("learning_rate", 10**400)
@example("first_preference", 10**30)
@example("memory_loss_coef", 3.4028235677973366e38)
@example("final_ent_coef", 10**30)
@example("device", "cuda:99")
@example("device", "meta")
@example("device", "hpu")
@example("memory_kwargs", {"n_layers": 10**9})
@example("memory_kwargs", {"units": 10**9})
@example("env_kwargs", {"max_length": 10**12})
def test_one_setting_of_a_run(field: str, value: Any) -> None:
    config = dataclasses.replace(BASE, **{field: value})
    if is_refused(config):
        return
    small = config.n_envs * config.n_steps <= 64 and config.width <= 64 and config.n_epochs <= 3
    if small and field not in ("env", "memory", "threads", "stats_window_size"):
        learns(config)


TASKS = [*ENVIRONMENTS]


@bounded(60)
@given(data=st.data(), env=st.sampled_from(TASKS), value=VALUES)
def test_one_setting_of_an_environment(data: st.DataObject, env: str, value: Any) -> None:
    names = sorted(environment_settings(environment_spec(env)))
    name = data.draw(st.sampled_from(names))
    config = dataclasses.replace(BASE, env=env, env_kwargs={name: value})
    if is_refused(config):
        return
    run_few_steps(config)


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_an_integer_that_no_float_holds_is_refused(memory: str) -> None:
    for name in (one.name for one in dataclasses.fields(MEMORIES_CONFIG[memory])):
        assert is_refused(dataclasses.replace(BASE, memory=memory, memory_kwargs={name: 10**400})), name


@pytest.mark.parametrize("env", TASKS)
@pytest.mark.parametrize("value", [10**4, 10**6, 35_000_000, 2**31, 2**62])
def test_large_settings_of_an_environment(env: str, value: int) -> None:
    """Such numbers are never drawn by chance, and make what fits into no machine."""
    for name in environment_settings(environment_spec(env)):
        config = dataclasses.replace(BASE, env=env, env_kwargs={name: value})
        if not is_refused(config):
            run_few_steps(config)


def run_few_steps(config: RunConfig) -> None:
    """Of two environments; what they give is finite, and in its space."""
    vec = make_env(config, n_envs=2, seed=0)
    vec.reset()
    vec.action_space.seed(0)
    for _ in range(5):
        observations, rewards, _, _ = vec.step(np.array([vec.action_space.sample() for _ in range(2)]))
        assert np.isfinite(rewards).all()
        assert observations[0] in vec.observation_space
    vec.close()


@bounded(80)
@given(
    data=st.data(),
    memory=st.sampled_from(sorted(MEMORIES)),
    value=VALUES,
    width=st.sampled_from([1, 2, 6, 8]),
)
def test_one_setting_of_a_memory(data: st.DataObject, memory: str, value: Any, width: int) -> None:
    fields = [one.name for one in dataclasses.fields(MEMORIES_CONFIG[memory])]
    kwargs = {data.draw(st.sampled_from(fields)): value} if fields else {}
    config = dataclasses.replace(BASE, memory=memory, width=width, memory_kwargs=kwargs)
    if is_refused(config) or (isinstance(value, int) and value > 64):
        return
    step_and_block(memory, width, kwargs, torch.zeros(3, 2, dtype=torch.bool))


MEMORIES_CONFIG = {name: type(make_config(name)) for name in MEMORIES}
SMALL: dict[str, dict[str, Any]] = {
    "transformer-xl": {"memory_size": 3},
    "gated-transformer-xl": {"memory_size": 3},
    "adaptive-span": {"max_span": 6, "ramp": 2},
    "compressive": {"memory_size": 3, "compression_rate": 2, "compressed_size": 2},
    "expire-span": {"max_span": 6, "ramp": 2},
    "refresh-span": {"max_span": 6, "ramp": 2, "renewal_width": 2},
    "infinity-former": {"memory_size": 4, "n_basis": 4, "chunk": 2},
    "summary-tree": {"memory_size": 2, "n_levels": 3},
}


def step_and_block(memory: str, width: int, kwargs: dict[str, Any], starts: torch.Tensor) -> None:
    """Steps and a block give the same finite features."""
    torch.manual_seed(0)
    built = make_memory(memory, width, kwargs)
    x = torch.randn(*starts.shape, width)
    state = built.initial_state(starts.shape[1])
    with torch.no_grad():
        block = built(x, {name: value.clone() for name, value in state.items()}, starts)
        for t, start in enumerate(starts):
            out = built.step(x[t], state, start)
            state = out.state
            torch.testing.assert_close(out.features, block.features[t], atol=1e-4, rtol=1e-4)
    assert block.features.isfinite().all()


PATTERNS = st.integers(1, 4).flatmap(
    lambda rows: st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=1, max_size=12)
)


@bounded(80)
@given(memory=st.sampled_from(sorted(MEMORIES)), starts=PATTERNS)
@example("compressive", [[True] * 3] * 9)
@example("summary-tree", [[False]] * 12)
@example("infinity-former", [[False]])
@example("expire-span", [[True, False]] + [[False, False]] * 7)
def test_patterns_of_episodes(memory: str, starts: list[list[bool]]) -> None:
    """All steps start an episode, none does, a block of one step, and whatever else."""
    step_and_block(memory, 8, SMALL.get(memory, {}), torch.tensor(starts))


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_not_everything_is_refused(memory: str) -> None:
    check_config(dataclasses.replace(BASE, memory=memory, width=8))


@pytest.mark.parametrize("env", TASKS)
def test_not_every_environment_is_refused(env: str) -> None:
    check_config(dataclasses.replace(BASE, env=env, env_kwargs={}))

import dataclasses
from io import StringIO

from rich.console import Console

from memspan.evaluation import comparison_tables, group_runs, results_tables, success_interval
from memspan.evaluation.groups import by_task
from memspan.evaluation.order import against_best


def test_seeds_are_grouped_and_settings_are_not(make_evaluation):
    runs = [
        make_evaluation(
            "transformer-xl", rate, size, seed=seed, memory_kwargs={"memory_size": size, "n_layers": 2}
        )
        for size, rate in ((8, 0.5), (64, 0.75))
        for seed in (1, 0)
    ]
    small, large = group_runs(runs)
    assert [run.seed for run in small.runs] == [0, 1]
    assert (small.label, large.label) == ("M=8", "M=64")
    assert (small.effective_memory, small.mean_score) == (8, 0.5)
    assert (large.effective_memory, large.mean_score) == (64, 0.75)


def test_labels(make_evaluation):
    def labels(*settings):
        return {
            group.label for group in group_runs([make_evaluation(settings=s, name=s["n"]) for s in settings])
        }

    one = {"n": "a", "memory_loss_coef": 2e-5}
    assert labels(one) == {""}
    assert labels(one, one | {"memory_loss_coef": 0.0}) == {"α=2e-5", "α=0"}  # noqa: RUF001
    assert labels(one, one | {"memory_loss_coef": 0.001, "n": "a"}) == {"α=2e-5", "α=0.001"}  # noqa: RUF001
    many = one | {"n": "b", "gamma": 0.9, "n_steps": 16}
    assert labels(one, many) == {"a", "b"}


def test_a_setting_that_is_not_given_is_the_default(make_evaluation):
    runs = [make_evaluation("lstm", memory_kwargs={"units": units}) for units in (None, 16)]
    assert {group.label for group in group_runs(runs)} == {"units=default", "units=16"}


def test_parts_of_a_vector_are_not_nothing(make_evaluation):
    run = dataclasses.replace(make_evaluation(), peak_memory=0.5, capacity=0.5, state_bytes=32)
    row = next(line for line in printed([run]).splitlines() if run.memory in line)
    assert row.split()[-4:-1] == ["0.5", "0.5", "0.031"]


def test_names_alone_set_apart(make_evaluation):
    groups = group_runs([make_evaluation(name="first"), make_evaluation(name="second")])
    assert [group.label for group in groups] == ["first", "second"]


def test_tasks_are_kept_apart(make_evaluation):
    runs = [make_evaluation(env_kwargs={"max_length": n}) for n in (200, 20, 200)]
    runs += [make_evaluation(), make_evaluation(env="Other-v0")]
    assert [len(of_task) for of_task in by_task(runs)] == [2, 1, 1, 1]


def printed(runs, tables=results_tables):
    out = StringIO()
    console = Console(file=out, width=100)
    for table in tables(runs):
        console.print(table)
    return out.getvalue()


def test_table_fits_100_columns(make_evaluation):
    runs = [
        make_evaluation(
            "transformer-xl", 0.5 + seed / 10, 1234.5, seed=seed, memory_kwargs={"memory_size": size}
        )
        for seed in (0, 1)
        for size in (8192, 256)
    ]
    text = printed([*runs, make_evaluation("none", 0.5, 0.0), make_evaluation(env="Other-v0", rate=None)])
    assert "…" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("transformer-xl" in line for line in lines) == 2
    assert sum(" mean " in line and "0.550" in line for line in lines) == 2
    low, high = success_interval([run for run in runs if run.memory_kwargs == {"memory_size": 256}])
    assert sum(f"{low:.3f}-{high:.3f}" in line for line in lines) == 2
    assert any("M=8192" in line and "0.404-0.596" in line for line in lines)
    assert "Other-v0" in text
    assert any("return" in line for line in lines)


def test_comparison_tables(make_evaluation):
    def eight(memory, rate, **more):
        return [make_evaluation(memory, rate, episodes=1000, seed=seed, **more) for seed in range(8)]

    runs = [
        *eight("gru", 0.9),
        *eight("lstm", 0.9),
        *eight("none", 0.5),
        make_evaluation("slow", 0.1, seed=9),
    ]
    lines = printed(runs, comparison_tables).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("against gru, the best" in line for line in lines)

    def row(memory):
        return next(" ".join(line.split()) for line in lines if line.startswith(f" {memory}"))

    assert row("lstm").startswith("lstm 8 +0.000")
    assert row("lstm").endswith("1.000 not distinguishable")
    assert row("none").startswith("none 8 -0.400")
    # Twice the rarest of 2^8 permutations, times the six pairs of four groups.
    assert row("none").endswith("0.00 0.047 worse")
    assert row("slow").endswith("no seed in common")


def test_more_groups_need_more_pairs(make_evaluation):
    """Of many memories that are the same, one of the pairs differs by luck."""
    groups = [[make_evaluation(rate=rate, seed=seed) for seed in range(7)] for rate in (0.9, 0.5, 0.1, 0.1)]
    for n, fewest, verdict in (2, 6, "worse"), (3, 7, "worse"), (4, 8, "too few pairs"):
        order = against_best(groups[:n])
        assert (order.best, order.fewest_pairs) == (0, fewest)
        assert [cells[-1] for _, cells in order.rows] == [verdict] * (n - 1)
        assert [cells[-2] for _, cells in order.rows] == [f"{n * (n - 1) / 128:.3f}"] * (n - 1)
    assert [i for i, _ in against_best(groups[::-1]).rows] == [2, 0, 1]


def test_over_tasks(make_evaluation):
    runs = [
        make_evaluation(memory, rate, seed=seed, env=env)
        for env, rates in (("A-v0", (0.9, 0.2)), ("B-v0", (0.5, 0.1)))
        for memory, rate in zip(("gru", "none"), rates, strict=True)
        for seed in (0, 1)
    ]
    text = printed([*runs, make_evaluation("lstm", env="A-v0")], comparison_tables)
    rows = [" ".join(line.split()) for line in text[text.index("Over 2 tasks") :].splitlines()]
    assert any(line.startswith("gru gru 4 0.700") for line in rows)
    assert any(line.startswith("none none 4 0.150") for line in rows)
    assert not any("lstm" in line for line in rows)


def test_returns_are_not_averaged_with_success_rates(make_evaluation):
    runs = [make_evaluation(env=env, seed=seed) for env in ("A-v0", "B-v0") for seed in (0, 1)]
    returns = [make_evaluation(rate=None, env="C-v0", mean_return=-200.0)]
    assert "Over 2 tasks" in printed([*runs, *returns], comparison_tables)
    assert "Over" not in printed([*runs[:2], *returns], comparison_tables)
    # Nor is there a table of the memories that all tasks share where they share none.
    assert "Over" not in printed([*runs[:2], make_evaluation("gru", env="B-v0")], comparison_tables)

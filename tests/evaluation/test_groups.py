from io import StringIO

from rich.console import Console

from memspan.evaluation import group_runs, results_tables
from memspan.evaluation.groups import by_task


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


def test_names_alone_set_apart(make_evaluation):
    groups = group_runs([make_evaluation(name="first"), make_evaluation(name="second")])
    assert [group.label for group in groups] == ["first", "second"]


def test_tasks_are_kept_apart(make_evaluation):
    runs = [make_evaluation(env_kwargs={"max_length": n}) for n in (200, 20, 200)]
    runs += [make_evaluation(), make_evaluation(env="Other-v0")]
    assert [len(of_task) for of_task in by_task(runs)] == [2, 1, 1, 1]


def printed(runs):
    out = StringIO()
    console = Console(file=out, width=100)
    for table in results_tables(runs):
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
    assert sum(" mean " in line and "0.550 0.500-0.600" in line for line in lines) == 2
    assert any("M=8192" in line and "0.404-0.596" in line for line in lines)
    assert "Other-v0" in text
    assert any("return" in line for line in lines)

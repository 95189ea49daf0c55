from itertools import pairwise, product

import matplotlib as mpl
import pytest
from matplotlib.image import imread

from memspan.evaluation import (
    Bucket,
    check_figure_path,
    save_figure,
    success_against_memory,
    success_by_difficulty,
)
from memspan.evaluation.figures import pool_buckets
from memspan.evaluation.labels import spread
from memspan.evaluation.looks import LOOKS, look_of, tint


@pytest.fixture
def sweep(make_evaluation):
    runs = [make_evaluation("none", 0.5, 0.0, seed=seed) for seed in range(3)]
    for seed, (i, size) in product(range(3), enumerate((8, 16, 32, 64, 128, 200))):
        kwargs = {"memory_size": size}
        runs.append(
            make_evaluation("transformer-xl", 0.5 + i / 10, size * 0.6, seed=seed, memory_kwargs=kwargs)
        )
    return runs


def texts(axes):
    return {text.get_text() for text in axes.texts}


def test_files(tmp_path, sweep):
    figure = success_against_memory(sweep)
    files = save_figure(figure, tmp_path / "new" / "figure.svg")
    assert [file.name for file in files] == ["figure.png", "figure.svg"]
    height, width, _ = imread(files[0]).shape
    assert (width, height) == tuple(round(200 * inches) for inches in figure.get_size_inches())
    before = files[1].read_bytes()
    save_figure(success_against_memory(sweep), tmp_path / "new" / "figure")
    assert files[1].read_bytes() == before


def test_axes(sweep):
    figure = success_against_memory(sweep)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "memspan/Corridor-v0"
    assert axes.get_ylabel() == "success rate"
    assert "memory vectors" in axes.get_xlabel()
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["0", "1", "2", "4", "8", "16", "32", "64", "128"]
    pixels = [axes.transData.transform((x, 0))[0] for x in (0, 1, 2, 4)]
    steps = [b - a for a, b in pairwise(pixels)]
    assert steps == pytest.approx([steps[0]] * 3)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["none", "transformer-xl", "best without\nmemory (0.5)"]
    assert {"M=8", "M=200"} <= texts(axes)
    assert not mpl.get_backend().lower().startswith("qt")


def test_labels_do_not_overlap(make_evaluation):
    runs = [make_evaluation("lstm", 0.5, 10 + i / 10, memory_kwargs={"memory_size": i}) for i in range(30)]
    figure = success_against_memory(runs)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 0 < len(boxes) < 30
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("memory", "size"), [("none", 0.0), ("lstm", 2.0), ("expire-span", 0.3), ("x:Y", 1e5)]
)
@pytest.mark.parametrize("rate", [0.0, 1.0, None])
def test_one_run(make_evaluation, memory, size, rate):
    runs = [make_evaluation(memory, rate, size)]
    (axes,) = success_against_memory(runs).axes
    left, right = axes.get_xlim()
    assert left < size < right
    assert len(axes.get_xticks()) <= 12
    assert (axes.get_ylabel() == "success rate") == (rate is not None)
    success_by_difficulty(runs)


def test_many_tasks_and_memories(tmp_path, make_evaluation):
    runs = [make_evaluation(f"memory-{i}", i / 20, 2.0**i) for i in range(12)]
    runs += [make_evaluation(env="Other-v0", rate=None), make_evaluation(env_kwargs={"max_length": 20})]
    figure = success_against_memory(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "memspan/Corridor-v0",
        "Other-v0",
        "memspan/Corridor-v0 (max_length=20)",
    ]
    save_figure(figure, tmp_path / "many")
    save_figure(success_by_difficulty(runs), tmp_path / "lengths")


def test_no_legend_is_cut_off(make_evaluation):
    for n in 1, 40:
        figure = success_against_memory([make_evaluation(f"memory-{i}", 0.5, 1.0 + i) for i in range(n)])
        box = figure.legends[0].get_window_extent()
        assert box.y0 >= 0
        assert box.y1 <= figure.get_window_extent().y1


def test_chance(make_evaluation):
    def legend(env, chance=None, **settings):
        figure = success_against_memory([make_evaluation(env=env, **settings)], chance)
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert legend("memspan/CorridorShuffled-v0") == ["lstm", "best without\nmemory (0.5)"]
    assert legend("Unknown-v0") == ["lstm"]
    # Where the limit depends on the settings, it is known for those that are registered.
    assert legend("memspan/Portal-v0") == ["lstm", "best without\nmemory (0.0065)"]
    assert legend("memspan/Portal-v0", env_kwargs={"num_rooms": 3}) == ["lstm"]
    assert legend("memspan/Corridor-v0", env_kwargs={"max_length": 9}) == [
        "lstm",
        "best without\nmemory (0.5)",
    ]
    assert legend("Unknown-v0", 0.25) == ["lstm", "best without\nmemory (0.25)"]


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least 1"):
        success_against_memory([])


def test_buckets_are_pooled(make_evaluation):
    wide = Bucket(1, 10, 10, 0.5, (0, 1))
    narrow = [Bucket(1, 5, 4, 1.0, (0, 1)), Bucket(6, 10, 6, 0.5, (0, 1)), Bucket(11, 15, 2, 0.0, (0, 1))]
    runs = [make_evaluation(success_by_length=[wide]), make_evaluation(success_by_length=narrow)]
    pooled = [(b.low, b.high, b.episodes, b.success_rate) for b in pool_buckets(runs)]
    assert pooled == [(1, 10, 20, 0.6), (11, 20, 2, 0.0)]
    assert pool_buckets([make_evaluation(rate=None)]) == []


def test_looks_are_stable():
    assert len({look.colour for look in LOOKS.values()}) == len(LOOKS)
    assert look_of("mine:Memory") == look_of("mine:Memory")
    assert look_of("mine:Memory").colour not in {look.colour for look in LOOKS.values()}
    assert tint("#0072b2", 0) == "#0072b2"
    assert tint("#000000", 1) == "#8c8c8c"


def test_figure_paths(tmp_path):
    check_figure_path(tmp_path / "deep" / "a.png")
    check_figure_path(tmp_path / "a")
    for bad in ("a.jpg", "a.pdf"):
        with pytest.raises(ValueError, match=r"figure=.*must be a file name that ends in \.png, \.svg"):
            check_figure_path(tmp_path / bad)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"figure=.*folder that can be written to"):
        check_figure_path(tmp_path / "file" / "a.png")


def test_names_at_the_ends_keep_apart():
    assert spread([0.1, 0.5], 0.05) == [0.1, 0.5]
    for wanted in ([1.0] * 5, [0.0] * 5, [0.1, 0.11, 0.12, 0.9, 0.99, 1.0]):
        places = spread(wanted, 0.1)
        assert all(b - a > 0.0999 for a, b in pairwise(places))
        assert min(places) > -1e-9
        assert max(places) <= 1

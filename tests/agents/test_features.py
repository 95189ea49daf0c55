"""From observations to features."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from toys import OBSERVATIONS

from memspan.agents.features import (
    DictExtractor,
    SymbolExtractor,
    WordExtractor,
    default_extractor,
    is_sentence,
    is_symbolic,
    preprocess,
)

N_OBJECTS, N_COLORS, N_STATES = len(OBJECT_TO_IDX), len(COLOR_TO_IDX), 4


def box(*shape: int, dtype: type = np.uint8, high: int = 255) -> spaces.Box:
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_symbols_are_embedded_and_summed(size: int) -> None:
    """One embedding table for each cell and channel; what they give is added up, less the average."""
    torch.manual_seed(0)
    extractor = SymbolExtractor(box(size, size, 3), features_dim=6).eval()
    extractor.average.uniform_()
    extractor.n_seen.zero_()
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, [N_OBJECTS, N_COLORS, N_STATES], (5, size, size, 3)).astype(np.uint8)
    per_cell = N_OBJECTS + N_COLORS + N_STATES
    weight = extractor.linear.weight.T  # (cells * per cell, features)
    expected = []
    for image in symbols:
        total = extractor.linear.bias - weight.T @ extractor.average
        for cell, (kind, colour, state) in enumerate(image.reshape(-1, 3).tolist()):
            table = weight[cell * per_cell : (cell + 1) * per_cell]
            total = total + table[kind] + table[N_OBJECTS + colour] + table[N_OBJECTS + N_COLORS + state]
        expected.append(total.relu())
    torch.testing.assert_close(extractor(torch.as_tensor(symbols)), torch.stack(expected))


def test_the_average_is_that_of_the_first_training_blocks() -> None:
    extractor = SymbolExtractor(box(1, 1, 3))
    first = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 1, 1, 3)
    other = torch.tensor([4, 5, 2], dtype=torch.uint8).view(1, 1, 1, 3)
    assert extractor.eval()(other).abs().max() == 0  # nothing to compare with
    read = extractor.train()(torch.cat([first, first, first, other]))
    assert read[0].abs().max() > 0.5  # with the average from before
    assert extractor.average[1] == 0.75
    with torch.no_grad():
        extractor(other)
    extractor.eval()(other)
    assert extractor.average[1] == 0.75
    extractor.train()(other)
    assert extractor.average[1] == 0.375
    for _ in range(extractor.n_averaged - 2):
        extractor(first)
    torch.testing.assert_close(extractor.average[1].item(), 1 - 1.25 / extractor.n_averaged)
    extractor(other)
    torch.testing.assert_close(extractor.average[1].item(), 1 - 1.25 / extractor.n_averaged)
    # What is nearly always there says next to nothing.
    assert extractor(first).abs().max() < 0.2 < extractor(other).abs().max()


def test_numbers_beyond_the_symbols_count_as_the_last() -> None:
    extractor = SymbolExtractor(box(3, 3, 3)).eval()
    last = torch.tensor([N_OBJECTS - 1, N_COLORS - 1, N_STATES - 1], dtype=torch.uint8).expand(1, 3, 3, 3)
    beyond = torch.full((1, 3, 3, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(extractor(beyond), extractor(last))


def test_turned_symbols_are_turned_back() -> None:
    extractor, turned = SymbolExtractor(box(7, 7, 3)), SymbolExtractor(box(3, 7, 7))
    turned.load_state_dict(extractor.state_dict())
    turned.eval(), extractor.eval()
    symbols = torch.randint(0, 4, (2, 7, 7, 3), dtype=torch.uint8)
    torch.testing.assert_close(turned(symbols.permute(0, 3, 1, 2)), extractor(symbols))


def test_what_is_symbolic() -> None:
    assert all(is_symbolic(space) for space in (box(3, 3, 3), box(7, 7, 3), box(25, 35, 3), box(3, 7, 7)))
    assert not any(
        is_symbolic(space)
        for space in (
            box(36, 36, 3),
            box(7, 7, 1),
            box(7, 7, 12),
            box(7, 7),
            box(7, 7, 3, dtype=np.float32),
            spaces.Discrete(3),
            OBSERVATIONS["dict"],
        )
    )
    with pytest.raises(ValueError, match=r"^observation_space=Box.*: must be .*symbols$"):
        SymbolExtractor(box(36, 36, 3))


def test_the_extractor_follows_from_the_space() -> None:
    expected = {
        "picture 36": NatureCNN,
        "picture 64": NatureCNN,
        "picture, channels first": NatureCNN,
        "symbols 3": SymbolExtractor,
        "symbols 7": SymbolExtractor,
        "dict": DictExtractor,
        "dict with picture and symbols": DictExtractor,
        "sentence": WordExtractor,
    }
    for name, space in OBSERVATIONS.items():
        assert default_extractor(space) is expected.get(name, FlattenExtractor), name


def test_parts_of_a_dictionary_are_joined() -> None:
    space = OBSERVATIONS["dict"]
    assert isinstance(space, spaces.Dict)
    extractor = DictExtractor(space, symbols_dim=10)
    assert extractor.features_dim == 10 + 4 + 2
    space.seed(0)
    batch = {key: torch.as_tensor(value)[None] for key, value in space.sample().items()}
    batch["direction"] = torch.tensor([2])
    out = extractor(preprocess(batch, space, normalize_images=True))
    assert out.shape == (1, 16)
    torch.testing.assert_close(out[0, :2], batch["compass"][0])
    assert out[0, 2:6].tolist() == [0, 0, 1, 0]


def test_pictures_are_scaled_and_symbols_are_not() -> None:
    assert preprocess(torch.full((1, 3, 36, 36), 255), box(3, 36, 36), True).max() == 1
    assert preprocess(torch.full((1, 3, 3, 3), 10), box(3, 3, 3), True).max() == 10


def sentences(n: int, n_places: int = 6, n_words: int = 30) -> torch.Tensor:
    """Of random words; the last places are filled up with 0."""
    ids = torch.randint(1, n_words, (n, n_places))
    ids[torch.arange(n_places) >= torch.randint(2, n_places + 1, (n, 1))] = 0
    return ids


def test_words_are_weighed_by_place_and_summed() -> None:
    torch.manual_seed(0)
    extractor = WordExtractor(spaces.MultiDiscrete([30] * 6), features_dim=5, n_embedded=7).eval()
    with torch.no_grad():
        extractor.places.uniform_()
    ids = sentences(40)
    usual = ids[:20]
    extractor(usual)  # makes the average

    def total(sentence: list[int]) -> torch.Tensor:
        return sum(extractor.words[w] * extractor.places[j] for j, w in enumerate(sentence) if w)

    mean = torch.stack([total(one) for one in usual.tolist()]).mean(0)
    expected = torch.stack([(total(one) - mean).relu() for one in ids.tolist()])
    expected = (expected @ extractor.mix.weight.T + extractor.mix.bias).relu()
    torch.testing.assert_close(extractor(ids), expected)


def test_sentences_in_another_order_are_told_apart_once_places_have_learnt() -> None:
    torch.manual_seed(0)
    extractor = WordExtractor(spaces.MultiDiscrete([30] * 6))
    optimizer = torch.optim.Adam(extractor.parameters(), lr=1e-2)
    ids = torch.stack([torch.randperm(6)[:6] + 1 for _ in range(400)])
    before = (ids == 1).int().argmax(1) < (ids == 2).int().argmax(1)  # word 1 stands before word 2
    head = torch.nn.Linear(64, 1)
    optimizer.add_param_group({"params": head.parameters()})
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(extractor(ids))[:, 0], before.float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((head(extractor(ids))[:, 0] > 0) == before).float().mean() > 0.95


def test_the_average_sentence_is_that_of_the_first_training_blocks() -> None:
    extractor = WordExtractor(spaces.MultiDiscrete([30] * 6))
    extractor.n_averaged = 2
    ids = torch.tensor([[1, 2, 3, 0, 0, 0]])
    other = torch.tensor([[4, 2, 0, 0, 0, 0]])
    extractor.eval()(torch.cat([ids, other]))
    assert extractor.average.view(6, 30)[0, [1, 4]].tolist() == [0.5, 0.5]
    for block, expected in ((ids, 1.0), (other, 0.5), (other, 0.5)):
        extractor.train()(block)
        assert extractor.average.view(6, 30)[0, 1] == expected
    assert extractor.average.view(6, 30)[1, 2] == 1


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (spaces.MultiDiscrete([30] * 6), True),
        (spaces.MultiDiscrete([30] * 5 + [31]), False),
        (spaces.MultiDiscrete([30] * 3), False),
        (spaces.MultiDiscrete([5] * 6), False),
        (spaces.MultiDiscrete([[30] * 6] * 2), False),
        (spaces.Discrete(30), False),
    ],
)
def test_what_is_a_sentence(space: spaces.Space, told: bool) -> None:
    assert is_sentence(space) == told
    assert (default_extractor(space) is WordExtractor) == told
    if not told:
        with pytest.raises(ValueError, match="must be a MultiDiscrete of word ids"):
            WordExtractor(space)

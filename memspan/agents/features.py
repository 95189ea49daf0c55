"""From observations to features: what SB3 has, and extractors for MiniGrid's symbols and for sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from memspan.memory import over_all
from memspan.memory.few_rows import Weights, are_few

# NatureCNN's convolutions need at least this many pixels; what is smaller is no picture.
SMALLEST_PICTURE = 36
# A MultiDiscrete with fewer numbers, or of fewer values, is no sentence: one-hot numbers serve it as well.
SHORTEST_SENTENCE = 4
SMALLEST_VOCABULARY = 16
# Objects, colours and states; an agent's direction (0 to 3) stands where a door's state does.
N_SYMBOLS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), max(len(STATE_TO_IDX), 4))


def is_symbolic(space: spaces.Space) -> bool:
    """Whether a space holds MiniGrid's (object, colour, state) cells: uint8, too small to be pixels.

    (V, V, 3), or (3, V, V) where SB3 has turned the axes for the sake of a picture beside them.
    """
    return (
        isinstance(space, spaces.Box)
        and space.dtype == "uint8"
        and len(space.shape) == 3
        and max(space.shape) < SMALLEST_PICTURE
        and (space.shape[-1] == 3 or space.shape[0] == 3)
    )


def is_sentence(space: spaces.Space) -> bool:
    """Whether a space holds the words of a sentence: ids of one vocabulary, place by place."""
    return (
        isinstance(space, spaces.MultiDiscrete)
        and space.nvec.ndim == 1
        and len(space.nvec) >= SHORTEST_SENTENCE
        and space.nvec[0] >= SMALLEST_VOCABULARY
        and bool((space.nvec == space.nvec[0]).all())
    )


def is_picture(space: spaces.Space) -> bool:
    """Whether a space holds pixels, and enough of them for NatureCNN."""
    if not is_image_space(space) or is_symbolic(space):
        return False
    return sorted(space.shape)[1] >= SMALLEST_PICTURE  # type: ignore[arg-type]


class DifferenceExtractor(BaseFeaturesExtractor):
    """What extractors share that read how an observation differs from the average one.

    What is always there would otherwise make all observations alike, and the one thing that matters a
    detail. The average is that of the first training blocks; later ones leave it alone, so that what is
    learnt stays what it was.
    """

    average: Tensor
    n_seen: Tensor
    n_averaged = 64
    """Training blocks that make the average."""

    def _register_average(self, length: int) -> None:
        self.register_buffer("average", torch.zeros(length))
        self.register_buffer("n_seen", torch.tensor(-1))
        self._told: tuple[Tensor, int, int] | None = None

    def _count(self) -> int:
        """`n_seen` as a number: a device is asked only when it has changed."""
        count = self.n_seen
        if self._told is None or self._told[0] is not count or self._told[1] != count._version:
            self._told = count, count._version, int(count)
        return self._told[2]

    def _usual(self, now: Callable[[], Tensor]) -> Tensor:
        """The average to take away, (length,); `now` gives the mean of the present observations."""
        if self._count() < 0:
            # Until there is a block to learn from, the first observations have to do.
            self.average, self.n_seen = over_all(now()), self.n_seen + 1
        usual = self.average
        if self.training and torch.is_grad_enabled() and self._count() < self.n_averaged:
            # For the next time: the first update starts from the features that were acted upon.
            self.n_seen += 1
            self.average = usual.lerp(over_all(now()), 1 / self.n_seen)
        return usual


class OneHotSymbols(nn.Module):
    """MiniGrid's symbols one-hot: of each cell object, colour and state, cells one after the other.

    Args:
        space: (V, V, 3) or (3, V, V) uint8, see `is_symbolic`.

    Raises:
        ValueError: the space holds no symbols.
    """

    columns: Tensor
    last: Tensor

    def __init__(self, space: spaces.Space) -> None:
        if not is_symbolic(space):
            raise ValueError(f"observation_space={space}: must be (V, V, 3) uint8 symbols")
        super().__init__()
        n_cells = get_flattened_obs_dim(space) // len(N_SYMBOLS)
        # Column of symbol 0 of each cell and channel.
        per_cell = torch.tensor([0, *N_SYMBOLS[:-1]]).cumsum(0)
        cells = torch.arange(n_cells)[:, None] * sum(N_SYMBOLS)
        self.register_buffer("columns", (cells + per_cell).flatten(), persistent=False)
        self.register_buffer("last", torch.tensor(N_SYMBOLS).repeat(n_cells) - 1, persistent=False)
        self.n_columns = n_cells * sum(N_SYMBOLS)
        assert space.shape is not None
        self.turned = space.shape[-1] != len(N_SYMBOLS)

    def in_order(self, symbols: Tensor) -> Tensor:
        """(B, V, V, 3) or (B, 3, V, V) -> (B, V V 3)."""
        return (symbols.permute(0, 2, 3, 1) if self.turned else symbols).flatten(1)

    def forward(self, symbols: Tensor) -> Tensor:
        """(B, V, V, 3) or (B, 3, V, V) -> (B, n_columns)."""
        index = torch.minimum(self.in_order(symbols).long(), self.last) + self.columns
        one_hot = torch.zeros(len(index), self.n_columns, device=index.device)
        return one_hot.scatter_(1, index, 1.0)


class SymbolExtractor(DifferenceExtractor):
    """Embeds object, colour and state of each cell and adds up what differs from the average picture.

    Embeddings followed by a sum over all cells are one linear map of one-hot symbols, which is how it is
    written.

    Args:
        observation_space: (V, V, 3) or (3, V, V) uint8, see `is_symbolic`.
        features_dim: length of the features.

    Raises:
        ValueError: the space holds no symbols.
    """

    def __init__(self, observation_space: gym.Space, features_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim)
        self.one_hot = OneHotSymbols(observation_space)
        self._register_average(self.one_hot.n_columns)
        self.linear = nn.Linear(self.one_hot.n_columns, features_dim)
        nn.init.normal_(self.linear.weight)  # as torch's embeddings
        nn.init.zeros_(self.linear.bias)
        self._weights = Weights(self, "average", "linear.weight", "linear.bias")

    def forward(self, observations: Tensor) -> Tensor:
        """(B, V, V, 3) or (B, 3, V, V) symbols -> (B, features_dim)."""
        symbols = self.one_hot.in_order(observations)
        if are_few(symbols) and self._count() >= 0 and (weights := self._weights.arrays()):
            from memspan.agents.symbols_kernel import embed_symbols

            few = symbols.new_empty(symbols.shape[0], self.features_dim)
            tensors = symbols.contiguous(), self.one_hot.last, self.one_hot.columns
            arguments: list[Any] = [each.numpy() for each in tensors]
            arguments += [*weights, few.numpy()]
            embed_symbols(*arguments)
            return few
        one_hot = self.one_hot(observations)
        out: Tensor = self.linear(one_hot - self._usual(lambda: one_hot.mean(0))).relu()
        return out


class WordExtractor(DifferenceExtractor):
    """Reads a sentence: embeds its words, weighs them by their place, adds up what differs from the average
    sentence, rectifies the sum and mixes it in one more layer.

    The sum over places j of l_j * E[word j] is the position encoding of Sukhbaatar et al., 2015 (arXiv
    1503.08895), here with weights l that are learnt, from 1 on.

    Args:
        observation_space: (W,) word ids, see `is_sentence`; 0 is no word, and adds nothing.
        features_dim: length of the features.
        n_embedded: width of the sum.

    Raises:
        ValueError: the space holds no sentences.
    """

    is_word: Tensor
    rows: Tensor

    def __init__(self, observation_space: gym.Space, features_dim: int = 64, n_embedded: int = 128) -> None:
        if not is_sentence(observation_space):
            raise ValueError(f"observation_space={observation_space}: must be a MultiDiscrete of word ids")
        super().__init__(observation_space, features_dim)
        n_places, n_words = len(observation_space.nvec), int(observation_space.nvec[0])  # type: ignore[attr-defined]
        self.words = nn.Parameter(torch.randn(n_words, n_embedded))
        self.places = nn.Parameter(torch.ones(n_places, n_embedded))
        self.mix = nn.Linear(n_embedded, features_dim)
        is_word = torch.arange(n_words) > 0
        self.register_buffer("is_word", is_word.float()[:, None], persistent=False)
        self.register_buffer("rows", n_words * torch.arange(n_places), persistent=False)
        self._register_average(n_places * n_words)

    def forward(self, observations: Tensor) -> Tensor:
        """(B, W) word ids -> (B, features_dim)."""
        index = observations.long() + self.rows
        # One row for every word in every place; no word is 0 in all of them.
        table = (self.words * self.is_word * self.places[:, None]).flatten(0, 1)
        summed = embedding_bag(index, table, mode="sum")
        out: Tensor = self.mix((summed - self._usual(lambda: self._frequencies(index)) @ table).relu()).relu()
        return out

    def _frequencies(self, index: Tensor) -> Tensor:
        """(places * words,) how often each word stands in each place."""
        return torch.bincount(index.flatten(), minlength=len(self.average)) / len(index)


class DictExtractor(BaseFeaturesExtractor):
    """One extractor per key of a Dict space, joined.

    Args:
        observation_space: Dict of spaces.
        picture_dim: features of a picture.
        symbols_dim: features of a grid of symbols, or of a sentence.
    """

    def __init__(self, observation_space: spaces.Dict, picture_dim: int = 256, symbols_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim=1)
        self.extractors = nn.ModuleDict()
        total = 0
        for key, space in observation_space.spaces.items():
            if is_symbolic(space):
                self.extractors[key], size = SymbolExtractor(space, symbols_dim), symbols_dim
            elif is_sentence(space):
                self.extractors[key], size = WordExtractor(space, symbols_dim), symbols_dim
            elif is_picture(space):
                assert isinstance(space, spaces.Box)
                self.extractors[key], size = NatureCNN(space, picture_dim), picture_dim
            else:
                self.extractors[key], size = nn.Flatten(), get_flattened_obs_dim(space)
            total += size
        self._features_dim = total

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        return torch.cat([extract(observations[key]) for key, extract in self.extractors.items()], dim=1)


def default_extractor(space: spaces.Space) -> type[BaseFeaturesExtractor]:
    """The extractor that suits an observation space."""
    if isinstance(space, spaces.Dict):
        return DictExtractor
    if is_symbolic(space):
        return SymbolExtractor
    if is_sentence(space):
        return WordExtractor
    if is_picture(space):
        return NatureCNN
    return FlattenExtractor


def preprocess(observations: Any, space: spaces.Space, normalize_images: bool) -> Any:
    """SB3's preprocessing (one-hot, pixels / 255), which leaves symbols and words as they are."""
    if isinstance(space, spaces.Dict):
        return {
            key: preprocess(observations[key], subspace, normalize_images)
            for key, subspace in space.spaces.items()
        }
    if is_sentence(space):
        return observations
    return preprocess_obs(observations, space, normalize_images and not is_symbolic(space))

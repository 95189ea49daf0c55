"""Names and settings of memories: what is refused, and how."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from memspan.memory import MEMORIES, Memory, make_config, make_memory, memory_class, register
from memspan.memory.none import NoMemory

PAGES = Path(__file__).parents[2] / "docs" / "memories"


class Borrowed(NoMemory):
    """A memory of another package, which no one registered."""


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("none", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("none", {"ff_factor": 0}, "ff_factor=0: must be at least 1"),
        ("lstm", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("lstm", {"units": 0}, "units=0: must be at least 1"),
        ("lstm", {"ff_factor": 0}, "ff_factor=0: must be at least 1"),
        ("lstm", {"longest_dependency": 2}, "longest_dependency=2: must be 0 or at least 3"),
        ("gru", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("gru", {"units": 0}, "units=0: must be at least 1"),
        ("gru", {"ff_factor": 0}, "ff_factor=0: must be at least 1"),
        ("gru", {"longest_dependency": 2}, "longest_dependency=2: must be 0 or at least 3"),
        ("transformer-xl", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("transformer-xl", {"n_heads": 0}, "n_heads=0: must be at least 1"),
        ("transformer-xl", {"ff_factor": 0}, "ff_factor=0: must be at least 1"),
        ("transformer-xl", {"n_frequencies": 0}, "n_frequencies=0: must be at least 1"),
        ("transformer-xl", {"memory_size": 0}, "memory_size=0: must be at least 1"),
        ("transformer-xl", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("gated-transformer-xl", {"memory_size": 0}, "memory_size=0: must be at least 1"),
        ("gated-transformer-xl", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("gated-transformer-xl", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("gated-transformer-xl", {"gate_bias": -1.0}, "gate_bias=-1.0: must be at least 0"),
        (
            "gated-transformer-xl",
            {"copy_at_first": True},
            "copy_at_first=True: must be False: a gate does not add what is read as it was stored",
        ),
        ("adaptive-span", {"max_span": 0}, "max_span=0: must be at least 1"),
        ("adaptive-span", {"ramp": 0}, "ramp=0: must be at least 1"),
        ("adaptive-span", {"initial_span": 1.5}, "initial_span=1.5: must be from 0 to 1"),
        ("adaptive-span", {"initial_span": -0.5}, "initial_span=-0.5: must be from 0 to 1"),
        ("adaptive-span", {"span_learning_rate": -0.1}, "span_learning_rate=-0.1: must be at least 0"),
        ("adaptive-span", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("adaptive-span", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("expire-span", {"max_span": 0}, "max_span=0: must be at least 1"),
        ("expire-span", {"ramp": 0}, "ramp=0: must be at least 1"),
        ("expire-span", {"initial_span": 1.0}, "initial_span=1.0: must be between 0 and 1, both excluded"),
        ("expire-span", {"initial_span": 0}, "initial_span=0: must be between 0 and 1, both excluded"),
        ("expire-span", {"span_learning_rate": -0.1}, "span_learning_rate=-0.1: must be at least 0"),
        ("compressive", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("compressive", {"memory_size": 0}, "memory_size=0: must be at least 1"),
        ("compressive", {"compression_rate": 1}, "compression_rate=1: must be at least 2"),
        ("compressive", {"compressed_size": 0}, "compressed_size=0: must be at least 1"),
        ("compressive", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        (
            "compressive",
            {"compression": "min"},
            "compression='min': must be one of mean, max, conv, dilated-conv, most-used",
        ),
        (
            "compressive",
            {"compression": "mean"},
            "compression_loss='attention-reconstruction': must be 'none' for compression='mean', "
            "which learns nothing",
        ),
        (
            "compressive",
            {"compression_loss": "none"},
            "compression_loss='none': must be one of bptt, auto-encoding, attention-reconstruction "
            "for compression='conv'",
        ),
        ("infinity-former", {"memory_size": 0}, "memory_size=0: must be at least 1"),
        ("infinity-former", {"n_basis": 1}, "n_basis=1: must be at least 2"),
        ("infinity-former", {"chunk": 0}, "chunk=0: must be from 1 to memory_size=64"),
        ("infinity-former", {"chunk": 9, "memory_size": 8}, "chunk=9: must be from 1 to memory_size=8"),
        ("infinity-former", {"tau": 1.0}, "tau=1.0: must be between 0 and 1, both excluded"),
        ("infinity-former", {"tau": 0}, "tau=0: must be between 0 and 1, both excluded"),
        ("infinity-former", {"ridge": 0}, "ridge=0: must be above 0"),
        ("infinity-former", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("expire-span", {"n_heads": 5}, "n_heads=5: must divide the width 8"),
        ("refresh-span", {"max_span": 0}, "max_span=0: must be at least 1"),
        ("refresh-span", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("refresh-span", {"renewal_width": 0}, "renewal_width=0: must be at least 1"),
        (
            "refresh-span",
            {"initial_renewal": 1.0},
            "initial_renewal=1.0: must be between -1 and 1, both excluded",
        ),
        (
            "refresh-span",
            {"initial_renewal": -1},
            "initial_renewal=-1: must be between -1 and 1, both excluded",
        ),
        (
            "refresh-span",
            {"penalty": "ramp"},
            "penalty='ramp': must be 'new': life is charged when it is given",
        ),
        ("linear-attention", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("linear-attention", {"n_heads": 0}, "n_heads=0: must be at least 1"),
        ("linear-attention", {"ff_factor": 0}, "ff_factor=0: must be at least 1"),
        ("linear-attention", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("linear-attention", {"update_rule": "add"}, "update_rule='add': must be 'sum' or 'delta'"),
        ("linear-attention", {"feature_map": "relu"}, "feature_map='relu': must be 'elu', 'favor' or 'dpfp'"),
        ("linear-attention", {"n_random": 0}, "n_random=0: must be at least 1"),
        ("linear-attention", {"nu": 0}, "nu=0: must be at least 1"),
        ("linear-attention", {"nu": 2}, "nu=2: must be at least 1 and less than the head width 2"),
        ("linear-attention", {"n_heads": 8}, "nu=1: must be at least 1 and less than the head width 1"),
        ("state-space", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("state-space", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
        ("state-space", {"longest_dependency": 1}, "longest_dependency=1: must be at least 2"),
        ("summary-tree", {"memory_size": 0}, "memory_size=0: must be at least 1"),
        ("summary-tree", {"n_levels": 1}, "n_levels=1: must be from 2 to 24"),
        ("summary-tree", {"n_levels": 25}, "n_levels=25: must be from 2 to 24"),
        ("summary-tree", {"n_layers": 0}, "n_layers=0: must be at least 1"),
        ("summary-tree", {"n_heads": 3}, "n_heads=3: must divide the width 8"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    """Field, value and what is allowed."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_memory(name, 8, settings)


@pytest.mark.parametrize("name", MEMORIES)
def test_unknown_settings_are_refused(name: str) -> None:
    known = ", ".join(field.name for field in dataclasses.fields(memory_class(name).Config))
    with pytest.raises(ValueError, match=f"^n_layer=2: memory '{name}' has no such setting; it has {known}$"):
        make_config(name, {"n_layer": 2})


@pytest.mark.parametrize("name", MEMORIES)
def test_configs_cannot_be_changed_unchecked(name: str) -> None:
    config = make_config(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layers = 0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="n_layers=0"):
        dataclasses.replace(config, n_layers=0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", MEMORIES)
def test_widths(name: str) -> None:
    with pytest.raises(ValueError, match=r"^width=0: must be at least 1$"):
        make_memory(name, 0)
    assert make_memory(name, 12).width == 12


def test_unknown_names() -> None:
    with pytest.raises(
        ValueError, match=r"^memory='elephant': unknown; must be one of .*expire-span, .*, or module:Class$"
    ):
        make_memory("elephant", 8)
    with pytest.raises(ValueError, match=r"^memory='no_such_module:Memory': cannot be imported"):
        make_memory("no_such_module:Memory", 8)
    with pytest.raises(ValueError, match=r"^memory='torch:NoSuchClass': cannot be imported"):
        make_memory("torch:NoSuchClass", 8)
    with pytest.raises(ValueError, match=r"^memory='torch:Tensor': must be a subclass of memspan"):
        make_memory("torch:Tensor", 8)


def test_memories_of_other_packages() -> None:
    """By import path, or registered; a name is given once."""
    assert isinstance(make_memory("test_settings:Borrowed", 8, {"n_layers": 1}), NoMemory)
    try:
        assert register("borrowed")(Borrowed) is Borrowed
        register("borrowed")(Borrowed)
        assert isinstance(make_memory("borrowed", 8), Memory)
        with pytest.raises(ValueError, match=r"^memory='borrowed': already registered as Borrowed$"):
            register("borrowed")(NoMemory)
    finally:
        del MEMORIES["borrowed"]


@pytest.mark.parametrize("name", MEMORIES)
def test_every_setting_is_on_the_memorys_page(name: str) -> None:
    """With the default that it has."""
    page = (PAGES / f"{name}.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, flags=re.MULTILINE))
    expected = {field.name: str(field.default) for field in dataclasses.fields(memory_class(name).Config)}
    assert {field: value.strip(" `") for field, value in rows.items()} == expected
    assert f"[{name}]({name}.md)" in (PAGES / "index.md").read_text()

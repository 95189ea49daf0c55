"""Training runs: settings, folders, checkpoints; see `memspan.runs.folder` for a folder's layout."""

from memspan.runs.build import adapt, make_env, make_model, spread_seed
from memspan.runs.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from memspan.runs.config import RunConfig
from memspan.runs.folder import checkpoint_path, find_runs, load_config, load_model, run_folder, save_config
from memspan.runs.presets import preset, preset_blocks
from memspan.runs.scan import LEFT_OUT, lines_of, scan_runs

__all__ = [
    "LEFT_OUT",
    "CheckpointInfo",
    "RunConfig",
    "adapt",
    "checkpoint_path",
    "find_runs",
    "lines_of",
    "load_checkpoint",
    "load_config",
    "load_model",
    "make_env",
    "make_model",
    "preset",
    "preset_blocks",
    "read_info",
    "run_folder",
    "save_checkpoint",
    "save_config",
    "scan_runs",
    "spread_seed",
]

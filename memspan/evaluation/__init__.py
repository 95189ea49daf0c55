"""Evaluation: episodes -> statistics -> tables, figures, TensorBoard."""

from memspan.evaluation.episodes import Episodes, play_episodes
from memspan.evaluation.figures import success_against_memory, success_by_difficulty
from memspan.evaluation.groups import Group, group_runs
from memspan.evaluation.intervals import mean_interval, wilson_interval
from memspan.evaluation.panels import CHANCE, check_figure_path, save_figure
from memspan.evaluation.progress import show_progress
from memspan.evaluation.provenance import provenance
from memspan.evaluation.results import Bucket, Evaluation, summarise
from memspan.evaluation.statistics import (
    compare,
    interquartile_mean,
    probability_of_improvement,
    success_interval,
)
from memspan.evaluation.table import comparison_tables, results_tables
from memspan.evaluation.tensorboard import write_events

__all__ = [
    "CHANCE",
    "Bucket",
    "Episodes",
    "Evaluation",
    "Group",
    "check_figure_path",
    "compare",
    "comparison_tables",
    "group_runs",
    "interquartile_mean",
    "mean_interval",
    "play_episodes",
    "probability_of_improvement",
    "provenance",
    "results_tables",
    "save_figure",
    "show_progress",
    "success_against_memory",
    "success_by_difficulty",
    "success_interval",
    "summarise",
    "wilson_interval",
    "write_events",
]

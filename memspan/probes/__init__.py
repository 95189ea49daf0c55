"""Probes: questions about the past that a memory learns to answer by supervision, without RL."""

from memspan.probes import capacity, copy, recall, sort  # noqa: F401  (they register)
from memspan.probes.base import PROBES, Probe, Sequences
from memspan.probes.entrants import Entrant, far_enough, parse_entrant
from memspan.probes.results import ProbeResults, Result
from memspan.probes.training import ProbeModel, Training, run

__all__ = [
    "PROBES",
    "Entrant",
    "Probe",
    "ProbeModel",
    "ProbeResults",
    "Result",
    "Sequences",
    "Training",
    "far_enough",
    "parse_entrant",
    "run",
]

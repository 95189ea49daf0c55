"""A run's model card: what the Hub lists and sorts by, in YAML, and what people read, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResult, ModelCardData

from memspan.evaluation.results import Evaluation
from memspan.runs import RunConfig
from memspan.runs.checkpoint import as_plain

TASK = "reinforcement-learning"
PICTURES = {
    "replay.gif": "Episodes, beside what the agent remembers",
    "success.png": "Success rate by what makes the task hard",
    "training.png": "Success rate and effective memory while training",
}
"""File -> what it shows. The Hub itself shows `replay.mp4`."""
_NOT_TOLD = {"run_dir", "device", "threads", "checkpoint_every", "keep_checkpoints"}


@dataclass(frozen=True)
class Card:
    """What a card tells of a run."""

    config: RunConfig
    timesteps: int
    evaluation: Evaluation | None
    files: frozenset[str]
    """What is in the folder."""
    repo: str | None
    """OWNER/NAME; None where the folder stays a folder."""

    def __str__(self) -> str:
        return f"---\n{self._metadata()}\n---\n\n" + "\n\n".join(self._parts()) + "\n"

    @property
    def _env(self) -> str:
        return self.config.env.rpartition(":")[2]

    @property
    def _memory(self) -> str:
        return self.config.memory.rpartition(":")[2]

    def _metadata(self) -> str:
        return ModelCardData(
            library_name="memspan",
            pipeline_tag=TASK,
            tags=[TASK, f"deep-{TASK}", "stable-baselines3", "memspan", self._short_env, self._memory],
            model_name=f"{self._memory} on {self._short_env}" if self.evaluation else None,
            eval_results=list(self._results()) or None,
        ).to_yaml()

    @property
    def _short_env(self) -> str:
        return self._env.rpartition("/")[2]

    def _results(self) -> Iterable[EvalResult]:
        found = self.evaluation
        if found is None:
            return
        measured = {
            "mean_reward": ("mean return", found.mean_return),
            "success_rate": ("success rate", found.success_rate),
            "effective_memory": ("effective memory", round(found.effective_memory, 3)),
        }
        for kind, (name, value) in measured.items():
            if value is not None:
                yield EvalResult(
                    task_type=TASK,
                    task_name=TASK,
                    dataset_type=self._short_env,
                    dataset_name=self._env,
                    metric_type=kind,
                    metric_name=name,
                    metric_value=value,
                )

    def _parts(self) -> Iterable[str]:
        yield f"# {self._memory} on {self._env}"
        yield (
            f"An agent with the memory `{self._memory}`, trained by PPO for {self.timesteps:,} steps in "
            f"`{self._env}` (seed {self.config.seed}), with memspan, a benchmark of memory in reinforcement "
            "learning."
        )
        yield self._measured()
        for name, what in PICTURES.items():
            if name in self.files:
                yield f"![{what}]({name})"
        yield "## Use"
        yield self._use()
        yield "## Settings"
        told = {name: value for name, value in as_plain(self.config).items() if name not in _NOT_TOLD}
        yield f"```yaml\n{yaml.safe_dump(told, sort_keys=False)}```"

    def _measured(self) -> str:
        found = self.evaluation
        if found is None:
            return "It has not been evaluated."
        rows = [("mean return", f"{found.mean_return:.3f}", _ends(found.return_ci))]
        if found.success_rate is not None and found.success_ci is not None:
            rows.insert(0, ("success rate", f"{found.success_rate:.3f}", _ends(found.success_ci)))
        rows.append(("effective memory (vectors that a step can read)", f"{found.effective_memory:.1f}", ""))
        rows.append(("state", f"{found.state_bytes:,} bytes", ""))
        lines = [f"| {name} | {value} | {ends} |" for name, value, ends in rows]
        how = "most probable actions" if found.deterministic else "actions drawn as in training"
        code = f"memspan {found.memspan_version}" + (
            f", commit {found.git_commit}" if found.git_commit else ""
        )
        return (
            "| measured | | 95 % interval |\n|---|---|---|\n" + "\n".join(lines) + "\n\n"
            f"{found.episodes:,} held-out episodes, {how}, seed {found.evaluation_seed}; weights after "
            f"{found.timesteps:,} steps; {code}."
        )

    def _use(self) -> str:
        source = self.repo or "./FOLDER"
        lines = [
            "pip install 'memspan[hub]'" if self.repo else "pip install memspan",
            f"memspan pull {source} --folder agent",
            "memspan evaluate agent --episodes 100",
            "memspan watch agent",
        ]
        if self.timesteps < self.config.total_timesteps:
            lines.append("memspan train --resume agent")
        return (
            "```sh\n" + "\n".join(lines) + "\n```\n\n"
            "In Python: `config, model = memspan.runs.load_model('agent', device='cpu')`. Weights are "
            "safetensors; no file is a pickle."
        )


def _ends(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"

"""Runs to pass on: a folder with a model card, as the Hugging Face Hub shows it, and back; without pickles.

README.md                   model card
config.yaml                 settings, without paths and devices of the machine that trained
checkpoints/*.safetensors   the last checkpoint, from which training goes on, and the best
evaluation.json             if the run was evaluated
training.png, success.png   curves while training; success by what makes the task hard
replay.mp4 or replay.gif    episodes, beside what the agent remembers

This is a run's folder (`memspan.runs.folder`): every command that reads one reads it. `memspan.hub.client`
alone needs a network; it and `memspan.hub.card` need the extra `hub`.
"""

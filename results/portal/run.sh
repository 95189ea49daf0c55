#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder, one run after the other on one core.
# Runs go to runs/results; a run that is there already is refused and left alone (memspan train --resume FOLDER
# goes on with one that was interrupted). Runs of lstm and transformer-xl also predicted ends: see README.md for commits.
set -u
train() { memspan train --run-dir runs/results --env memspan/Portal-v0 "$@" || echo "not trained: $*" >&2; }

for seed in 0 1; do
    train --memory lstm --seed $seed
done
for seed in 0 1; do
    train --memory transformer-xl --seed $seed
done
for seed in 0 1; do
    train --memory expire-span --seed $seed
done

memspan evaluate runs/results/Portal-v0 --figure results/portal/success-against-memory.png
python results/publish.py runs/results results/portal Portal-v0
python results/curves.py results/portal/Portal-v0 results/portal/curves.png

#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder, one run after the other on one core; see results/corridor/run.sh.
set -u
train() { memspan train --env memspan/Portal-v0 --run-dir runs/results "$@" || echo "not trained: $*" >&2; }

for seed in 0 1; do
    for memory in none lstm transformer-xl expire-span; do
        train --memory $memory --seed $seed
    done
done

memspan evaluate runs/results/Portal-v0 --figure results/portal/success-against-memory.png
python results/publish.py runs/results results/portal Portal-v0

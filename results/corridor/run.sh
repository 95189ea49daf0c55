#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder: hours on one core, half of it on two.
# Runs go to runs/results; a run that is there already is left alone.
set -u
train() { memspan train --run-dir runs/results "$@" || true; }

for seed in 0 1 2; do
    for memory in none lstm transformer-xl expire-span; do
        train --memory $memory --seed $seed
    done
done
# How much memory does success cost? Windows of other sizes, spans at other prices.
for size in 8 16 32 64 128; do
    train --memory transformer-xl --memory.memory-size $size --name transformer-xl-m$size
done
for penalty in 2e-4 1e-3; do
    train --memory expire-span --memory-loss-coef $penalty --name expire-span-$penalty
done
# Doors' sides drawn at random.
for memory in none lstm transformer-xl expire-span; do
    train --env memspan/CorridorShuffled-v0 --memory $memory
done

memspan evaluate runs/results/Corridor-v0 --figure results/corridor/success-against-memory.png \
    --length-figure results/corridor/success-by-length.png
memspan evaluate runs/results/CorridorShuffled-v0 --figure results/corridor/shuffled.png
python results/publish.py runs/results results/corridor

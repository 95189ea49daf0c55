#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder, one run after the other on one core.
# Runs go to runs/results; a run that is there already is refused and left alone (memspan train --resume FOLDER
# goes on with one that was interrupted).
set -u
train() { memspan train --run-dir runs/results "$@" || echo "not trained: $*" >&2; }

for memory in none lstm transformer-xl expire-span; do
    for seed in 0 1 2; do
        train --memory $memory --seed $seed
    done
done
# The other memories.
for memory in gru gated-transformer-xl adaptive-span compressive infinity-former linear-attention state-space \
    refresh-span summary-tree; do
    train --memory $memory
done
for memory in gru refresh-span; do
    for seed in 1 2; do
        train --memory $memory --seed $seed
    done
done
# How much memory does success cost? Windows of other sizes, spans at other prices.
for size in 8 16 32 64 128; do
    train --memory transformer-xl --memory.memory-size $size --name transformer-xl-m$size
done
train --memory expire-span --memory-loss-coef 1e-4 --name expire-span-1e-4
train --memory expire-span --memory-loss-coef 0 --name expire-span-0
# Doors' sides drawn at random.
for memory in none lstm transformer-xl expire-span; do
    train --env memspan/CorridorShuffled-v0 --memory $memory
done

memspan evaluate runs/results/Corridor-v0 --figure results/corridor/success-against-memory.png \
    --difficulty-figure results/corridor/success-by-length.png
memspan evaluate runs/results/CorridorShuffled-v0 --figure results/corridor/shuffled.png
python results/publish.py runs/results results/corridor Corridor-v0 CorridorShuffled-v0
python results/curves.py results/corridor/Corridor-v0 results/corridor/curves.png

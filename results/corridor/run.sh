#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder, one run after the other on one core.
# Runs go to runs/results; a run that is there already is refused and left alone (memspan train --resume FOLDER
# goes on with one that was interrupted).
set -u
train() { memspan train --run-dir runs/results "$@" || echo "not trained: $*" >&2; }

# Windows, widths, prices of memory, a ramp of 4; three seeds each.
memspan sweep results/corridor/sweep.yaml --run-dir runs/results
# The other memories.
for memory in gated-transformer-xl adaptive-span compressive infinity-former linear-attention state-space \
    refresh-span summary-tree; do
    train --memory $memory
done
for seed in 1 2; do
    train --memory refresh-span --seed $seed
done
# Doors' sides drawn at random.
for memory in none lstm transformer-xl expire-span; do
    train --env memspan/CorridorShuffled-v0 --memory $memory
done

memspan evaluate runs/results/Corridor-v0 --figure results/corridor/success-against-memory.png \
    --difficulty-figure results/corridor/success-by-length.png
memspan evaluate runs/results/CorridorShuffled-v0 --figure results/corridor/shuffled.png
# Beyond training, and the memory horizon.
corridor=runs/results/Corridor-v0
beyond() { memspan evaluate "$corridor/$1" --env.max-length "$2" --episodes "$3" "${@:4}"; }
for seed in 0 1 2; do
    beyond expire-span-r4/$seed 1000 256 --memory.max-span 2560
    beyond expire-span-r4/$seed 10000 128 --memory.max-span 25600
done
beyond expire-span/0 1000 256 --memory.max-span 1280
beyond expire-span/0 10000 128 --memory.max-span 12800
beyond refresh-span/0 1000 256 --memory.max-span 1280
beyond adaptive-span/0 1000 256 --memory.max-span 1280
beyond compressive/0 1000 256
beyond compressive/0 1000 256 --memory.compressed-size 242
beyond summary-tree/0 1000 256
beyond gated-transformer-xl/0 1000 256 --memory.memory-size 1000
beyond summary-tree/0 10000 256
beyond refresh-span/0 10000 128 --memory.max-span 12800
beyond compressive/0 10000 128 --memory.compressed-size 2492
beyond gated-transformer-xl/0 10000 8 --memory.memory-size 10000 --n-envs 8
beyond adaptive-span/0 10000 8 --memory.max-span 12800 --n-envs 8
beyond transformer-xl/0 1000 256
beyond transformer-xl/0 1000 256 --memory.memory-size 1000
beyond transformer-xl/0 10000 8 --memory.memory-size 10000 --n-envs 8
for memory in lstm gru state-space linear-attention; do
    beyond $memory/0 10000 256
done
memspan horizon $corridor/lstm/0 $corridor/transformer-xl/0 $corridor/expire-span-r4/0 --episodes 200

python results/publish.py --weights transformer-xl --weights expire-span --weights expire-span-r4 --weights lstm \
    --weights gru --weights refresh-span --weights adaptive-span --weights compressive --weights summary-tree \
    --weights gated-transformer-xl runs/results results/corridor Corridor-v0 CorridorShuffled-v0
python results/curves.py results/corridor/Corridor-v0 results/corridor/curves.png
python results/beyond.py results/corridor/Corridor-v0 results/corridor/beyond.png

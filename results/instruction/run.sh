#!/usr/bin/env bash
# Trains, evaluates and draws everything in this folder, one run after the other on one core.
# Runs go to runs/results; a run that is there already is refused and left alone (memspan train --resume FOLDER
# goes on with one that was interrupted).
set -u
train() { memspan train --run-dir runs/results "$@" || echo "not trained: $*" >&2; }

for memory in transformer-xl expire-span; do
    train --env memspan/InstructionSmall-v0 --memory $memory
done

for seed in 0 1; do
    train --env memspan/Instruction-v0 --memory expire-span --seed $seed
    train --env memspan/Instruction-v0 --memory lstm --seed $seed
done
train --env memspan/Instruction-v0 --memory transformer-xl --seed 0
train --env memspan/Instruction-v0 --memory transformer-xl --seed 1 --n-minibatches 16 --n-epochs 2

memspan evaluate runs/results/InstructionSmall-v0 --figure results/instruction/success-against-memory.png
memspan evaluate runs/results/Instruction-v0 --figure results/instruction/success-against-memory-full.png
python results/publish.py runs/results results/instruction InstructionSmall-v0 Instruction-v0
python results/curves.py results/instruction/Instruction-v0 results/instruction/curves-full.png
python results/curves.py results/instruction/InstructionSmall-v0 results/instruction/curves.png

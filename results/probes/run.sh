#!/usr/bin/env bash
# What made the results in this folder. Replaces results.
#     results/probes/run.sh [recall|recall_taught|recall_long|capacity|capacity_narrow|capacity_wide|replace|copy|copy_window|sort ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
probe() { "$python" -m memspan probe "$@" --overwrite; }
falling="--final-learning-rate 0"
# Most stop early: at 20 batches in a row without an error.
small="--steps 1000 --batch-size 16 --test-sequences 128"

recall() {
    probe recall --gaps 10 100 1000 $small --out results/probes/recall
}

# What leaves their windows is taught by a loss of their own.
recall_taught() {
    probe recall --gaps 10 100 1000 $small --memory-loss-coef 1 --out results/probes/recall-taught \
        --memory compressive summary-tree
}

# First spans are half of the longest by default, and grow slowly.
recall_long() {
    probe recall --gaps 1000 $small --out results/probes/recall-long --memory adaptive-span,initial_span=0.95
}

# One layer with one head, so that the feature map's dimensions are all that there is to keep pairs in: elu has
# 32 of them at a width of 32, dpfp 64, 128 and 192, favor 64.
capacity() {
    one="linear-attention,n_layers=1,n_heads=1"
    probe capacity --pairs 16 32 64 --width 32 --steps 1500 $falling --test-sequences 128 --out results/probes/capacity --memory \
        $one,update_rule=sum,feature_map=elu $one,update_rule=sum,feature_map=favor \
        $one,update_rule=sum,feature_map=dpfp,nu={1,2,3} transformer-xl,n_layers=1,n_heads=1 lstm
}

replace() {
    one="linear-attention,n_layers=1,n_heads=1"
    probe capacity --replace --pairs 8 16 32 --width 32 --steps 1500 $falling --test-sequences 128 --out results/probes/replace \
        --memory $one,feature_map=dpfp,nu=2,update_rule={sum,delta}
}

# A quarter of the usual width, to see dpfp's errors begin: at 32, 64 and 96 dimensions.
capacity_narrow() {
    one="linear-attention,n_layers=1,n_heads=1"
    probe capacity --pairs 32 64 96 --width 16 --steps 1500 $falling --test-sequences 128 --out results/probes/capacity-narrow \
        --memory $one,update_rule=sum,feature_map=dpfp,nu={1,2,3}
}

# The usual width, as in the paper: elu has 64 dimensions, dpfp 128, 256 and 384. About an hour.
capacity_wide() {
    one="linear-attention,n_layers=1,n_heads=1"
    probe capacity --pairs 64 128 256 --width 64 --steps 3000 $falling --test-sequences 128 --out results/probes/capacity-wide \
        --memory transformer-xl,n_layers=1,n_heads=1 $one,update_rule=sum,feature_map=elu \
        $one,update_rule=sum,feature_map=dpfp,nu={1,2,3}
}

copy() {
    probe copy --gaps 100 1000 10000 $small --out results/probes/copy --memory lstm state-space linear-attention
}

# Windows over 10,000 steps take minutes a batch.
copy_window() {
    probe copy --gaps 100 1000 $small --out results/probes/copy-window --memory transformer-xl summary-tree
}

sort() {
    probe sort --lengths 30 100 300 --steps 400 --batch-size 16 --test-sequences 128 --out results/probes/sort --memory \
        transformer-xl,memory_size=20 transformer-xl lstm linear-attention,update_rule=sum state-space infinity-former
}

for name in "${@:-recall recall_taught recall_long capacity capacity_narrow capacity_wide replace copy copy_window sort}"; do
    for each in $name; do $each; done
done

#!/bin/sh
# From the raw data to a hierarchy that answers: sh run.sh, or sh run.sh --reduced for a trial.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
requests=${REQUESTS:-3000}
collect() {
    "$python" -m tierwise policy collect --data "build/data/$1.npz" --output "build/$1.npz" \
        --model edge=build/models/edge --model regional=build/models/regional \
        --model cloud=build/models/cloud
}

"$python" prepare.py "$@"
"$python" train.py "$@"
collect calibration
collect certify
# At most four points of accuracy below the cloud, wrong with a chance of at most 10 %.
"$python" -m tierwise policy fit --train build/calibration.npz --cal build/certify.npz \
    --max-loss 0.04 --delta 0.1 --name activity --output build/policy.json
"$python" -m tierwise policy show build/policy.json
collect test
"$python" -m tierwise policy eval --dataset build/test.npz --policy build/policy.json
"$python" run.py --requests "$requests"

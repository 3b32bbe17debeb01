#!/usr/bin/env bash
# A new user's first hour: a fresh environment, MNIST, 500 images at N = 100,000 in two shards, one stopped
# by SIGTERM and one killed, both continued, merged, plotted.
#
#     benchmarks/first_hour.sh DATA_DIR [WORK_DIR]      # DATA_DIR holds MNIST in TFDS format
set -u
repository=$(cd "$(dirname "$0")/.." && pwd)
data=$(cd "$1" && pwd)
cd "${2:-$(mktemp -d)}" || exit 2

say() { printf '%5ds  %s\n' "$SECONDS" "$1"; }
certify() { "$environment/certjax" certify runs/mnist --out runs/hour --evenly 500 --num-samples 100000 --shard "$1/2" 2>>"shard-$1.log"; }

environment=$PWD/environment/bin
python3 -m venv environment && "$environment/pip" install -q "$repository"
say 'installed'
"$environment/certjax" train mnist --sigma 0.5 --out runs/mnist --data-dir "$data" 2>train.log
say "trained (exit code $?)"

certify 0 & first=$!
certify 1 & second=$!
sleep 300; pkill -TERM -P "$first"; wait "$first"
say "shard 0 stopped by SIGTERM (exit code $?)"
certify 0 & first=$!
sleep 240; pkill -KILL -P "$second"; wait "$second"
say "shard 1 killed (exit code $?)"
"$environment/certjax" report runs/hour | tail -4
certify 1 & second=$!
wait "$first" "$second"
say 'both shards complete'
"$environment/certjax" report runs/hour

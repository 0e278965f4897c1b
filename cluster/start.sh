#!/usr/bin/env bash
# Start Ray on this machine: as the head, or, with ADDRESS, as a node of the cluster whose head is there.
#   cluster/start.sh [ADDRESS]
set -euo pipefail

: "${RAY_AUTH_TOKEN:?set RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on every machine}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_memory_monitor_refresh_ms=0

# Short, since Ray's sockets lie in it (a batch system's TMPDIR is too long), and gone when Ray ends.
folder=$(mktemp -d /tmp/ray-XXXXXXXX)
trap 'rm -rf "$folder"' EXIT

if [ $# -eq 0 ]; then
    node=(--head --port="${RAY_PORT:-6379}" --include-dashboard=false)
else
    node=(--address="$1")
fi
cpus=$(env -u OMP_NUM_THREADS nproc) # those that the job may use, not all that there are
ray start "${node[@]}" --temp-dir="$folder" --num-cpus="$cpus" --block &
ray=$!
trap 'kill $ray' INT TERM
wait $ray || wait $ray

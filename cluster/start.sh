#!/usr/bin/env bash
# Start Ray on this machine: as the head, or, with ADDRESS, as a node of the cluster whose head is there.
#   cluster/start.sh [ADDRESS]
set -euo pipefail

: "${RAY_AUTH_TOKEN:?set RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on every machine}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_memory_monitor_refresh_ms=0

if [ $# -eq 0 ]; then
    exec ray start --head --port="${RAY_PORT:-6379}" --include-dashboard=false --block
fi
exec ray start --address="$1" --block

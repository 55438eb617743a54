#!/usr/bin/env bash
# Runs the default suite where it is hard on it: on a machine with a load of 10 (LOOPS), with
# SIGHUP ignored as under nohup, with a server of the user's own on the default address,
# and with settings of pylok's in the environment. The suite must pass, and leave that
# server and its locks alone.
set -euo pipefail
cd "$(dirname "$0")/.."
go build -o .tools/ ./cmd/...
dir=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

XDG_STATE_HOME=$dir/state .tools/pylokd --root "$dir/locks" --state-dir "$dir/state" >"$dir/log" 2>&1 &
started+=($!)
until grep -qs ': serving' "$dir/log"; do
  kill -0 "${started[0]}" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
  sleep 0.1
done
taken=(lb/web lb/web-1 switch-7 x k backup/orders)
for name in "${taken[@]}"; do .tools/pylok lock "$name" --holder somebody >/dev/null; done
before=$(env -i .tools/pylok list -o json; env -i .tools/pylok info -o json | grep -i revision)

for ((i = 0; i < ${LOOPS:-10}; i++)); do
  (while :; do :; done) &
  started+=($!)
done
export PYLOK_HOLDER=nobody PYLOK_TOKEN=4711 PYLOK_NAME=lb/web TZ=Asia/Tokyo
export PYLOK_CONTEXT=nowhere PYLOK_TOKEN_FILE=/nowhere PYLOK_CA=/nowhere PYLOK_TLS=true PYLOKD_ACCESS=/nowhere
nohup make test </dev/null >"$dir/suite" 2>&1 || { cat "$dir/suite"; exit 1; }
tail -n 40 "$dir/suite"

after=$(env -i .tools/pylok list -o json; env -i .tools/pylok info -o json | grep -i revision)
[ "$before" = "$after" ] || { printf 'the server of the user has changed:\n%s\n%s\n' "$before" "$after" >&2; exit 1; }
echo "the suite passed beside a server of the user's own, at a load of 10"

#!/usr/bin/env bash
# Shows pylok from a shell with grpcurl: locks with data, watches from a second
# connection, is refused as a third, and unlocks. PYLOK_ADDRESS says where the
# server is. The server describes itself, so grpcurl needs no .proto file.
set -euo pipefail

name=examples/server-1

# call METHOD JSON [PREFIX]...
call() {
	"${@:3}" grpcurl -plaintext -format-error -d "$2" "${PYLOK_ADDRESS:-127.0.0.1:5625}" "pylok.v1.LockService/$1"
}

# field NAME prints the first string of that name in the JSON on stdin.
field() {
	sed -n "s/^ *\"$1\": \"\([^\"]*\)\".*/\1/p" | head -n 1
}

# follow TYPE prints the events of the watch up to the first of that type.
follow() {
	local line event=
	while IFS= read -r line <&"${watch[0]}"; do
		event+=$line$'\n'
		[ "$line" = "}" ] || continue # an event ends there
		local type
		type=$(field type <<<"$event")
		case $type in
		EVENT_TYPE_LOCKED) echo "watching: locked by $(field holder <<<"$event"), $(field status <<<"$event")" ;;
		EVENT_TYPE_UNLOCKED) echo "watching: unlocked by $(field holder <<<"$event"), $(field status <<<"$event")" ;;
		esac
		[ "$type" != "$1" ] || return 0
		event=
	done
	echo "the watch has ended" >&2
	return 1
}

token=$(call Lock '{"name": "'$name'", "holder": "alice", "data": {"backend": "App1", "status": "MAINT"}}' | field token)
echo "locked $name, token $token"

coproc watch { call Watch '{"pattern": "examples/*"}' exec; }
trap 'kill "$watch_PID"' EXIT
follow EVENT_TYPE_SYNCED

if refusal=$(call Lock '{"name": "'$name'", "holder": "bob"}' 2>&1); then
	echo "bob was not refused" >&2
	exit 1
fi
echo "refused: $(field reason <<<"$refusal") by $(field holder <<<"$refusal")"

call Unlock '{"name": "'$name'", "token": "'"$token"'", "data": {"backend": "App1", "status": "READY"}}' >/dev/null
echo "unlocked $name"
follow EVENT_TYPE_UNLOCKED

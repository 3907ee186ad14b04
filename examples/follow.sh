#!/usr/bin/env bash
# Everything with curl: make a session, say something, follow it as one JSON object a line until the turn is over.
#
#     bash examples/follow.sh [URL [TEXT]]      (PARLEY_TOKEN holds your token, if one is needed)
set -euo pipefail

url=${1:-http://127.0.0.1:8080}
text=${2:-count to 20 slowly}
session=curl-$(date +%s)-$RANDOM$RANDOM   # a name of our own, so that no answer has to be taken apart

# Call it in a subshell: it becomes curl. The token goes through a pipe, where `ps` does not show it.
ask() {
    exec curl -sS --fail-with-body -H @<(printf '%s' "${PARLEY_TOKEN:+Authorization: Bearer $PARLEY_TOKEN}") "$@"
}

# A text as a JSON string.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\r'/\\r} text=${text//$'\t'/\\t}
    printf '"%s"' "$text"
}

post() {
    (ask -H 'Content-Type: application/json' --data-binary "$2" "$url$1") >&2 && echo >&2
}

post /sessions "{\"session_id\": \"$session\"}"
# The same id twice takes effect once: a command whose answer was lost may simply be sent again.
post "/sessions/$session/commands" "{\"type\": \"user_message\", \"id\": \"1\", \"content\": $(quoted "$text")}"

# From the beginning of the log (after=0), so that nothing which happened before we listen is missed.
exec 3< <(ask -N -H 'Accept: application/x-ndjson' "$url/sessions/$session/events?after=0")
trap 'kill $! 2>/dev/null || true' EXIT
while IFS= read -r event <&3; do
    printf '%s\n' "$event"
    case $event in '{"event_type":"task_completed",'*) exit 0 ;; esac
done
echo 'follow: the stream ended before the turn; its log is still there to be read' >&2
exit 1

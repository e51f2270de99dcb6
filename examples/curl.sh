#!/bin/sh
# Lists the agents and talks to one: ./curl.sh [AGENT]. FRONTDESK_URL and FRONTDESK_API_KEY say where and with which key.
set -eu
url=${FRONTDESK_URL:-http://127.0.0.1:8000}
key=${FRONTDESK_API_KEY:-none}
agent=${1:-Milo}

curl --fail-with-body -sS "$url/v1/models" -H "authorization: Bearer $key"
echo

# Both messages are of one conversation, so the second need not repeat the first. -N: show the stream as it comes.
for text in "My name is Ada." "What is my name?"; do
    curl --fail-with-body -sSN "$url/v1/chat/completions" \
        -H "authorization: Bearer $key" \
        -H "content-type: application/json" \
        -H "x-frontdesk-conversation: example-$$" \
        -d "{\"model\": \"$agent\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"$text\"}]}"
done

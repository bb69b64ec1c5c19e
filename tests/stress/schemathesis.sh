#!/usr/bin/env bash
# Random requests made from the OpenAPI document of a server over a real index, under every check of schemathesis.
#   pip install -e '.[stress]'
#   tests/stress/schemathesis.sh IDX [CASES, at most, of each address]
# 503 is allowed: it is the server's word for "later". No other 5xx, and no other finding, is. The summary says how many cases ran:
# many that do not depend on CASES, and CASES for each address that takes anything.
set -euo pipefail
index=$1 cases=${2:-1000} port=${PORT:-8765}
here=$(cd "$(dirname "$0")" && pwd)
lexmax serve "$index" --port "$port" --log-level warning &
server=$!
trap 'kill $server; wait $server || true' EXIT
until curl -sf "http://127.0.0.1:$port/readyz" > /dev/null; do kill -0 $server; sleep 0.5; done
schemathesis --config-file "$here/schemathesis.toml" run "http://127.0.0.1:$port/openapi.json" \
  --checks all --request-timeout 60 --max-response-time 60 --max-examples "$cases" --continue-on-failure --phases examples,coverage,fuzzing --seed 1

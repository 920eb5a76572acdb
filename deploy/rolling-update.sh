#!/bin/sh
# Update the nodes of docker-compose.cluster.yml to a new version or new settings, one after the other: the next one only when
# the one before is healthy. Clients of a node that stops reconnect to the others and recover.
set -eu
cd "$(dirname "$0")/.."

compose() { ${COMPOSE:-docker compose} -f docker-compose.cluster.yml "$@"; }
health() { docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")"; }

compose build
for node in $(compose config --services | grep '^node' | sort); do
  echo "==> $node"
  compose up -d --no-deps --no-build "$node"
  for _ in $(seq 60); do
    if [ "$(health "$node")" = healthy ]; then continue 2; fi
    sleep 1
  done
  echo "$node is not healthy after a minute: the other nodes stay as they are. Its log: docker compose -f docker-compose.cluster.yml logs $node" >&2
  exit 1
done

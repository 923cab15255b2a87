#!/bin/bash
# Pause Valkey PAUSES times, for PAUSE_MS each, and let it run for BETWEEN_S in between. Then end.
#
# CLIENT PAUSE makes Valkey leave every command of every client unanswered, as a stalled disk or a stopped machine would,
# and ends by itself whatever becomes of us. Spoken through bash's own TCP, as an image need not have valkey-cli.
set -euo pipefail

exec 3<>"/dev/tcp/${VALKEY_HOST:-valkey}/6379"
for round in $(seq "${PAUSES:-3}"); do
  printf 'CLIENT PAUSE %d ALL\r\n' "${PAUSE_MS:-2000}" >&3
  read -r -t 10 answer <&3
  [ "$answer" = $'+OK\r' ] || { echo "Valkey said: $answer" >&2; exit 1; }
  echo "pause $round of ${PAUSES:-3}: ${PAUSE_MS:-2000} ms"
  # `PING` is answered when the pause is over
  printf 'PING\r\n' >&3
  read -r -t 60 answer <&3
  echo "over"
  sleep "${BETWEEN_S:-2}"
done

#!/bin/sh
# Runs an image as recommended, detects on one image with it, and ends it: `smoke_test.sh IMAGE`.
set -eu
docker run --detach --name service --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges --memory 1g --publish 127.0.0.1:8000:8000 \
    --env ALLOW_ANONYMOUS=1 "$1"
timeout 60 sh -c 'until curl --silent --fail http://127.0.0.1:8000/health; do sleep 1; done'
curl --fail-with-body --form file=@data/stills/belt.jpg http://127.0.0.1:8000/v1/predict | grep qr_code
docker stop --time 60 service
test "$(docker inspect --format '{{.State.ExitCode}}' service)" = 0

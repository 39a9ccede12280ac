#!/bin/sh
# Signs what a registry holds under a digest with the identity of the workflow that runs: `sign.sh NAME@sha256:…`. COSIGN
# is the image of cosign. The registry's password is that of `docker login`.
set -eu
case "$1" in
*@sha256:*) ;;
*) echo "$1 names no digest; a signature of a tag would cover whatever the tag is then" >&2 && exit 2 ;;
esac
docker run --rm --user "$(id -u)" --tmpfs /tmp --env HOME=/tmp --env DOCKER_CONFIG=/docker \
    --env ACTIONS_ID_TOKEN_REQUEST_URL --env ACTIONS_ID_TOKEN_REQUEST_TOKEN \
    --volume "$HOME/.docker:/docker:ro" "$COSIGN" sign --yes --recursive "$1"

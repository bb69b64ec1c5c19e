#!/bin/sh
# Prints an image with the digest that its tag has today: docker/pin.sh python:3.11.14-slim-bookworm
set -eu
digest=$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}')
echo "$1@$digest"

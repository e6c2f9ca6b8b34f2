#!/usr/bin/env bash
# Builds containerd 2.x, its shim and ctr from the Go module into target/containerd-2, for the tests that run on both
# major versions. Without Go nothing is built, and those tests are reported as ignored with that reason. Another
# containerd of the 2.x line can be named instead: SHAKEDOWN_TEST_CONTAINERD2=/path/to/containerd.
set -euo pipefail

version=v2.4.2
folder=$(cd "$(dirname "$0")/.." && pwd)/target/containerd-2
[ "$(cat "$folder/version" 2>/dev/null)" != "$version" ] || exit 0
[ -z "${SHAKEDOWN_TEST_CONTAINERD2:-}" ] || exit 0
if ! command -v go >/dev/null 2>&1; then
  echo "setup: go is missing, so nothing is tested on containerd 2.x (install Go 1.25 or newer to have that)"
  exit 0
fi
echo "setup: building containerd $version (about two minutes, once)"
mkdir -p "$folder"
module=github.com/containerd/containerd/v2/cmd
GOBIN=$folder GOFLAGS=-trimpath CGO_ENABLED=0 \
  go install "$module/containerd@$version" "$module/ctr@$version" "$module/containerd-shim-runc-v2@$version"
echo "$version" >"$folder/version"

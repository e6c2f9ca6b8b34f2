#!/usr/bin/env bash
# Installs what the build, the tests and the conformance run need and what is missing, through apt.
# Installs nothing that is there already, in whatever version; without apt it prints what to install and stops.
# Usage: setup/install.sh build|test|conformance
set -euo pipefail

purpose=${1:?usage: setup/install.sh build|test|conformance}
packages=()

# need COMMAND PACKAGE: a program that must be in PATH (or in the system folders, which a plain user's PATH may lack).
need() {
  PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

need cc gcc
need protoc protobuf-compiler
if [ "$purpose" != build ]; then
  need containerd containerd
  need runc runc
  need ip iproute2
  need iptables iptables
  need busybox busybox-static
  need docker-registry docker-registry
  if [ ! -x /usr/lib/cni/bridge ] && [ ! -x /opt/cni/bin/bridge ]; then
    packages+=(containernetworking-plugins)
  fi
  # Debian's plain busybox is linked dynamically; the base images hold nothing but this one file.
  if command -v busybox >/dev/null 2>&1 && ldd "$(command -v busybox)" >/dev/null 2>&1; then
    packages+=(busybox-static)
  fi
fi
if [ "$purpose" = test ]; then
  need strace strace
fi
if [ "$purpose" = conformance ]; then
  need dockerd docker.io
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "setup: cargo is missing; install Rust 1.95 or newer with rustup, then run this again" >&2
  exit 1
fi
[ ${#packages[@]} -gt 0 ] || exit 0

elevate=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && elevate=(sudo)
fi
if ! command -v apt-get >/dev/null 2>&1 || { [ "$(id -u)" -ne 0 ] && [ ${#elevate[@]} -eq 0 ]; }; then
  echo "setup: please install these packages (Debian's names), then run this again:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 1
fi
echo "setup: installing ${packages[*]}"
# Another clone, or the system itself, may be at it at the same moment: apt's locks are waited for, for five minutes.
patiently() {
  local attempt output
  for attempt in $(seq 60); do
    if output=$("${elevate[@]}" "$@" 2>&1); then
      return 0
    fi
    case $output in
      *[Ll]ock*) echo "setup: apt is busy (attempt $attempt), trying again in 5 s"; sleep 5 ;;
      *) break ;;
    esac
  done
  printf '%s\n' "$output" >&2
  return 1
}
patiently apt-get update -qq
patiently env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
case " ${packages[*]} " in
  # Debian starts the packaged registry and has it listen on all addresses; the tests run a private one of their own.
  *" docker-registry "*) [ ! -d /run/systemd/system ] || "${elevate[@]}" systemctl disable -q --now docker-registry ;;
esac

#!/usr/bin/env bash
# Installs what a node and the hosts outside it need from Debian, as far as it is missing. Exits 1
# with the list when it may not (no root, no apt-get).
set -euo pipefail

packages=(
	binutils buildah busybox-static conntrack containerd containernetworking-plugins curl iproute2
	nftables openssl procps python3 runc util-linux # the node
	haproxy nginx-light postgresql redis-server # outside hosts
)

installed() {
	dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed'
}

missing=()
for package in "${packages[@]}"; do
	installed "$package" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "packages.sh: install ${missing[*]} (Debian's names), or run this as root on Debian" >&2
	exit 1
fi

# Debian starts the servers that it installs. Ours run in namespaces of their own; the machine's
# owner did not ask for a PostgreSQL of his own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
echo "packages.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >&2
apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}" >/dev/null

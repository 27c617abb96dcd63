#!/usr/bin/env bash
# Installs what the tests need beside cargo and go, as far as it is missing: Debian packages (as root) and cargo-deny.
# The programs of the cluster and both Helms are built by tests/cluster/, when a test first asks for them.
set -euo pipefail

packages=(busybox-static buildah iproute2 procps prometheus python3-venv util-linux)
commands=(busybox buildah ip npm promtool ps setpriv unshare)
command -v npm >/dev/null || packages+=(npm)

missing=0
for command in "${commands[@]}"; do
	command -v "$command" >/dev/null || missing=1
done
python3 -c 'import ensurepip' 2>/dev/null || missing=1

if [ "$missing" = 1 ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
	else
		echo "tests/setup.sh: install ${packages[*]} (what needs them is skipped without)" >&2
	fi
fi

if ! cargo deny --version >/dev/null 2>&1; then
	cargo install cargo-deny --locked --version 0.20.2 --target-dir "${TMPDIR:-/tmp}/cargo-deny-build"
fi

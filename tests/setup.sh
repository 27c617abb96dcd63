#!/usr/bin/env bash
# Installs what the tests need beside cargo and go, as far as it is missing: Debian packages (as root) and cargo-deny.
# The programs of the cluster and both Helms are built by tests/cluster/, when a test first asks for them.
set -euo pipefail

# Kubernetes' own programs ask for this one; Debian's is older.
go_needed=1.26
if ! command -v go >/dev/null; then
	echo "tests/setup.sh: no \`go\` on PATH: install Go $go_needed or newer" >&2
	exit 1
fi
go_found=$(go env GOVERSION | sed 's/^go//')
if [ "$(printf '%s\n' "$go_needed" "$go_found" | sort -V | head -n 1)" != "$go_needed" ]; then
	echo "tests/setup.sh: Go $go_found is too old: install Go $go_needed or newer" >&2
	exit 1
fi

packages=(binutils busybox-static buildah ca-certificates chromium curl fonts-dejavu-core gcc haproxy iproute2 nginx-light procps prometheus python3-venv util-linux)
commands=(buildah cc chromium curl haproxy ip nginx npm promtool ps setpriv strip unshare)
command -v npm >/dev/null || packages+=(npm)

missing=0
for command in "${commands[@]}"; do
	command -v "$command" >/dev/null || missing=1
done
python3 -c 'import ensurepip' 2>/dev/null || missing=1
[ -d /etc/ssl/certs ] || missing=1
# The runner's image needs the static one; both are called busybox.
dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q ' installed' || missing=1

if [ "$missing" = 1 ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
	else
		echo "tests/setup.sh: install ${packages[*]} (what needs them is skipped without)" >&2
	fi
fi

for component in rustfmt clippy; do
	cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done

if ! cargo deny --version >/dev/null 2>&1; then
	build=${TMPDIR:-/tmp}/cargo-deny-build
	cargo install cargo-deny --locked --version 0.20.2 --target-dir "$build"
	rm -rf "$build"
fi

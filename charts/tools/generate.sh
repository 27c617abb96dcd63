#!/usr/bin/env bash
# Makes what is made in the chart: the copy of crds/, the values table of README.md and
# values.schema.json. With a directory as argument it writes there instead (README.md,
# values.schema.json, crds/), which is how the tests see drift without touching the tree.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
chart="$tools/../healthcheck-operator"
out=${1:-}

command -v npm >/dev/null || {
	echo "generate.sh: no \`npm\` on PATH: install Node.js 18 or newer" >&2
	exit 1
}
# One install at a time: tests and a person may call this at once.
exec 9>"$tools/.lock"
flock 9
installed="$tools/node_modules/.package-lock.json"
if [ ! -e "$installed" ] || [ "$tools/package-lock.json" -nt "$installed" ]; then
	npm --prefix "$tools" ci --no-audit --no-fund --loglevel=error >&2
	touch "$installed"
fi
exec 9>&-

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$chart/README.md" "$work/README.md"
node "$tools/node_modules/@bitnami/readme-generator-for-helm/bin/index.js" \
	--values "$chart/values.yaml" --readme "$work/README.md" --schema "$work/base.json" >"$work/log" || {
	cat "$work/log" >&2
	exit 1
}
node "$tools/schema.mjs" "$chart/values.yaml" "$work/base.json" >"$work/values.schema.json"

if [ -n "$out" ]; then
	mkdir -p "$out"
	"$tools/sync-crds.sh" "$out/crds"
	cp "$work/README.md" "$work/values.schema.json" "$out/"
else
	"$tools/sync-crds.sh"
	cp "$work/README.md" "$work/values.schema.json" "$chart/"
fi

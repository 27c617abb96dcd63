#!/usr/bin/env bash
# Licences, banned and doubled crates; known vulnerabilities too where their database can be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo deny --all-features check licenses bans sources
# The database of advisories is fetched anew; where it cannot be reached, that is said and is no failure.
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if cargo deny --all-features check advisories 2>"$report"; then
	exit 0
fi
if grep -q 'failed to fetch advisory database' "$report"; then
	echo "SKIP advisories: their database cannot be reached"
else
	cat "$report" >&2
	exit 1
fi

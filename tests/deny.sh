#!/usr/bin/env bash
# Licences, banned and doubled crates; known vulnerabilities too where their database can be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo deny --all-features check licenses bans sources
if [ "${ADVISORIES:-}" = 1 ]; then
	cargo deny --all-features check advisories
else
	echo "advisories not checked: set ADVISORIES=1 where their database can be reached"
fi

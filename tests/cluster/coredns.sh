#!/usr/bin/env bash
# Builds CoreDNS, the cluster's resolver on a real node, and prints the directory that holds it as
# `coredns`, and nothing else, on stdout. About 3 minutes from cold; at once when it was built
# before.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

coredns=v1.15.0

build() {
	echo "building CoreDNS $coredns (some minutes)"
	# Static, because its image is FROM scratch.
	CGO_ENABLED=0 GOBIN="$1" nice go install -trimpath -ldflags "-s -w" "github.com/coredns/coredns@$coredns"
}

fill_cache coredns build "$here/coredns.sh"

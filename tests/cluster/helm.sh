#!/usr/bin/env bash
# Builds Helm 3 and Helm 4 and prints the directory that holds them as `helm3` and `helm4`, and
# nothing else, on stdout. About 5 minutes from cold; at once when they were built before.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

helm3=v3.22.0
helm4=v4.3.1

# `go install` names the program after the package, so each gets a directory of its own first.
install_helm() {
	local into=$1 major=$2 version=$3
	echo "building Helm $version (some minutes)"
	CGO_ENABLED=0 GOBIN="$into/v$major" nice go install -trimpath \
		-ldflags "-s -w -X helm.sh/helm/v$major/internal/version.version=$version" \
		"helm.sh/helm/v$major/cmd/helm@$version"
	mv "$into/v$major/helm" "$into/helm$major"
	rmdir "$into/v$major"
}

build() {
	install_helm "$1" 3 "$helm3"
	install_helm "$1" 4 "$helm4"
}

fill_cache helm build "$here/helm.sh"

#!/usr/bin/env bash
# Builds the programs of a real cluster (kube-apiserver, kube-controller-manager, kube-scheduler,
# kubelet, kube-proxy, etcd, kubectl) from the Go module in programs/ and prints the directory
# that holds them, and nothing else, on stdout. About 7 minutes and 2 GB on the way from cold on
# two cores; at once when they were built before.
#
# KUBEBUILDER_ASSETS, when set, is printed instead: for those who have setup-envtest's programs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
	[ -x "$KUBEBUILDER_ASSETS/kube-apiserver" ] || fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no kube-apiserver in it"
	echo "$KUBEBUILDER_ASSETS"
	exit
fi

programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy etcd kubectl)

# A component refuses to start, or calls itself v0.0.0, without the stamps that Kubernetes' own
# build gives it.
stamps() {
	local version=$1 minor package
	minor=${version#v1.}
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		printf -- '-X %s.%s ' "$package" "gitVersion=$version" "$package" "gitMajor=1" \
			"$package" "gitMinor=${minor%%.*}" "$package" "gitTreeState=clean"
	done
}

build() {
	local into=$1 version program
	cd "$here/programs"
	version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
	echo "building Kubernetes $version into $into (several minutes)"
	CGO_ENABLED=0 nice go build -mod=readonly -buildvcs=false -trimpath -ldflags "-s -w $(stamps "$version")" -o "$into/programs" .
	for program in "${programs[@]}"; do
		ln -s programs "$into/$program"
	done
}

fill_cache cluster build "$here/programs/"{go.mod,go.sum,main.go} "$here/build.sh"

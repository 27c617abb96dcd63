#!/usr/bin/env bash
# Builds both images FROM scratch, as docker-archives that `docker load`, `podman load` and
# `ctr images import` read. Needs buildah, no daemon, no base image, no registry.
#
#   build/image.sh [DIR]     writes DIR/healthcheck-operator.tar and DIR/healthcheck-operator-runner.tar
#                            (default DIR: target/images), and prints their names
#
# IMAGE_PREFIX  what comes before the images' names, such as registry.example/team/ (default nothing)
# IMAGE_TAG     tag (default: the package's version)
# BINARY, BUSYBOX, CA_BUNDLE, PROFILE: see build/rootfs.sh
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$top/target/images}
prefix=${IMAGE_PREFIX:-}
tag=${IMAGE_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)}

fail() {
	echo "image.sh: $*" >&2
	exit 1
}

command -v buildah >/dev/null || fail "no \`buildah\` on PATH: install it (Debian: apt-get install buildah), or use docker with build/Dockerfile"

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/.work-XXXXXX")
trap 'rm -rf "$work"' EXIT
"$top/build/rootfs.sh" "$work/context"

# vfs and a store of its own: nothing is mounted, nothing is left behind.
run_buildah() {
	buildah --storage-driver vfs --root "$work/store" --runroot "$work/run" "$@"
}

for target in operator runner; do
	name=healthcheck-operator
	[ "$target" = operator ] || name=healthcheck-operator-runner
	run_buildah bud --isolation chroot --format docker --timestamp 0 --target "$target" \
		--iidfile "$work/id" --file "$work/context/Dockerfile" "$work/context" >&2
	rm -f "$out/$name.tar"
	run_buildah push --quiet "$(cat "$work/id")" "docker-archive:$out/$name.tar:$prefix$name:$tag" >&2
	echo "$out/$name.tar"
done

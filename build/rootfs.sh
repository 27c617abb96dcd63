#!/usr/bin/env bash
# Lays out the files of both images: DIR/operator, DIR/runner, and DIR/Dockerfile that makes images
# of them. Used by build/image.sh, by build/Dockerfile and by the Tiltfile, so that all three make
# the same images.
#
#   build/rootfs.sh DIR
#
# BINARY     a static healthcheck-operator; without it one is built with cargo
# BUSYBOX    a static busybox (default /bin/busybox, Debian's busybox-static)
# CA_BUNDLE  certificate authorities in PEM (default Debian's ca-certificates)
# PROFILE    cargo's profile to build with (default release; the node tests take e2e)
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:?usage: build/rootfs.sh DIR}
busybox=${BUSYBOX:-/bin/busybox}
bundle=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}
profile=${PROFILE:-release}

fail() {
	echo "rootfs.sh: $*" >&2
	exit 1
}

# Dynamic programs have an interpreter; FROM scratch there is none to run them.
need_static() {
	[ -x "$1" ] || fail "no program $1: $2"
	! LC_ALL=C readelf -lW "$1" 2>/dev/null | grep -q 'INTERP' || fail "$1 is not a static program: $2"
}

# The name of the target must be given: only then RUSTFLAGS leave build scripts and derives alone,
# which cannot be static.
build_binary() {
	local host
	host=$(rustc -vV | sed -n 's/^host: //p')
	(cd "$top" && RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
		cargo build --profile "$profile" --locked --target "$host" --bin healthcheck-operator >&2) ||
		fail "cargo could not build the binary; what it said is above"
	echo "${CARGO_TARGET_DIR:-$top/target}/$host/$profile/healthcheck-operator"
}

base() {
	local root=$1
	mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp"
	chmod 1777 "$root/tmp"
	install -m 0755 "$binary" "$root/usr/bin/healthcheck-operator"
	install -m 0644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
	echo 'nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin' >"$root/etc/passwd"
	echo 'nonroot:x:65532:' >"$root/etc/group"
	chmod 0644 "$root/etc/passwd" "$root/etc/group"
}

command -v readelf >/dev/null || fail "no \`readelf\` on PATH: install binutils"
[ -r "$bundle" ] || fail "no certificate bundle $bundle: install ca-certificates, or set CA_BUNDLE"
need_static "$busybox" "install busybox-static, or set BUSYBOX"
binary=${BINARY:-}
# Not inside ${…:-}: there a failed build would go unnoticed.
[ -n "$binary" ] || binary=$(build_binary)
need_static "$binary" "build it with RUSTFLAGS='-C target-feature=+crt-static', or leave BINARY unset"

rm -rf "$dir/operator" "$dir/runner"
mkdir -p "$dir"
base "$dir/operator"
base "$dir/runner"
# Whom the chart runs scripts as: of the same group, so that the operator may open the runner's socket.
echo 'runner:x:65533:65532:runner:/tmp:/sbin/nologin' >>"$dir/runner/etc/passwd"
mkdir -p "$dir/runner/bin"
install -m 0755 "$busybox" "$dir/runner/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$dir/runner/bin/$applet"
done
# The last stages of the one Dockerfile, with the files beside it instead of in a stage before.
sed -n '/^FROM scratch AS operator/,$p' "$top/build/Dockerfile" | sed 's#--from=build /rootfs/##' >"$dir/Dockerfile"

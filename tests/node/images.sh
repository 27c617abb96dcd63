#!/usr/bin/env bash
# Builds the node's own images FROM scratch and prints the directory that holds their archives, and
# nothing else, on stdout; at once when they were built before.
#
#   node-tools:1  a static busybox with all its applets. It is what holds a pod's namespaces, and
#                 what tests use as a client (wget, nc, nslookup) or a small server (httpd)
#   coredns:1
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../cluster/cache.sh"

busybox=/bin/busybox
coredns=$("$here/../cluster/coredns.sh")

# bake NAME WORK INTO: the context is WORK/NAME, with its Containerfile.
bake() {
	local name=$1 work=$2 into=$3
	# vfs and a store of its own: nothing is mounted, nothing is left behind.
	local b=(buildah --storage-driver vfs --root "$work/store" --runroot "$work/run")
	"${b[@]}" bud --isolation chroot --format docker --timestamp 0 --iidfile "$work/id" \
		--file "$work/$name/Containerfile" "$work/$name"
	"${b[@]}" push --quiet "$(cat "$work/id")" "docker-archive:$into/$name.tar:$name:1"
}

tools_context() {
	local dir=$1 applet
	mkdir -p "$dir/root/bin" "$dir/root/tmp"
	chmod 1777 "$dir/root/tmp"
	install -m 0755 "$busybox" "$dir/root/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$dir/root/bin/$applet"
	done
	cat >"$dir/Containerfile" <<-'END'
		FROM scratch
		COPY root/ /
		ENV PATH=/bin
		USER 65532:65532
		ENTRYPOINT ["/bin/sleep", "infinity"]
	END
}

coredns_context() {
	mkdir -p "$1"
	install -m 0755 "$coredns/coredns" "$1/coredns"
	printf 'FROM scratch\nCOPY coredns /coredns\nENTRYPOINT ["/coredns"]\n' >"$1/Containerfile"
}

build() {
	local into=$1 work
	work=$(mktemp -d "$into/.work-XXXXXX")
	tools_context "$work/node-tools"
	coredns_context "$work/coredns"
	bake node-tools "$work" "$into"
	bake coredns "$work" "$into"
	rm -rf "$work"
}

fill_cache node-images build "$here/images.sh" "$busybox" "$here/../cluster/coredns.sh"

# Sourced by the build scripts beside it: a cache of built programs, one directory a key, that
# lives outside target/ so that `cargo clean` and a fresh clone cost no rebuild.
#
# fill_cache KIND BUILDER INPUT...
#   prints the directory that holds the programs; calls `BUILDER DIR` to fill it when it does not
#   exist yet. The key is made of the INPUT files and of the machine's kind. The directory
#   appears by one rename, so whoever sees it sees it whole; a lock makes a second caller wait
#   for the first one's build instead of doing it again.

fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

need_go() {
	command -v go >/dev/null || fail "no \`go\` on PATH: install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a directory with kube-apiserver, kube-controller-manager, etcd and kubectl"
}

fill_cache() {
	local kind=$1 builder=$2
	shift 2
	local root="${XDG_CACHE_HOME:-$HOME/.cache}/healthcheck-operator"
	local key dir part objects
	key=$({ uname -sm; cat -- "$@"; } | sha256sum | cut -c1-16)
	dir="$root/$kind-$key"
	mkdir -p "$root"
	if [ ! -d "$dir" ]; then
		exec 9>"$root/$kind.lock"
		flock 9
	fi
	if [ ! -d "$dir" ]; then
		need_go
		part=$(mktemp -d "$root/.$kind-XXXXXX")
		# What is compiled on the way is gigabytes, and nobody asks for it again.
		objects=$(mktemp -d "$root/.$kind-XXXXXX")
		# shellcheck disable=SC2064 # the directories of now are those to remove
		trap "rm -rf '$part' '$objects'" EXIT
		chmod 755 "$part"
		GOCACHE=$objects "$builder" "$part" >&2
		mv -T "$part" "$dir"
		rm -rf "$objects"
		# Each key is a hundred megabytes and more: what nobody asked for in a month goes, and so
		# do the remains of builds that were killed.
		find "$root" -maxdepth 1 -name "$kind-*" -mtime +30 -exec rm -rf {} +
		find "$root" -maxdepth 1 -name ".$kind-*" -mtime +1 -exec rm -rf {} +
	fi
	touch -- "$dir" # the time of its last use
	# The builder's own children have the lock's descriptor too: let go of it by name.
	exec 9>&-
	echo "$dir"
}

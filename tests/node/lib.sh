# Sourced by the scripts beside it: the run directory with its facts, programs that are started and
# ended, and waiting with a bound. Each script sets `set -euo pipefail` itself.
#
# NODE_RUN  the run's directory: facts (`env`), logs, certificates, data. Several runs can be up at
#           a time, each with a directory of its own. Default: see below.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)

# Not under target/: `cargo clean` must not take away what `down` needs of a node that is up.
run=${NODE_RUN:-${XDG_STATE_HOME:-$HOME/.local/state}/healthcheck-operator/node}
mkdir -p "$run"
run=$(cd "$run" && pwd)
facts=$run/env

me=${0##*/}

# Whoever has a proxy does not mean it for these addresses.
export NO_PROXY="198.18.0.0/15,127.0.0.1${NO_PROXY:+,$NO_PROXY}"
export no_proxy=$NO_PROXY

say() {
	echo "$me: $*" >&2
}

fail() {
	say "$*"
	exit 1
}

need_root() {
	[ "$(uname -s)" = Linux ] || fail "a node needs Linux"
	[ "$(id -u)" = 0 ] || fail "a node needs root (network namespaces, cgroups, mounts): run this with sudo"
}

# One fact of the run, for this script and for everyone who reads the file. Values are plain words:
# the file is read by programs in other languages too.
fact() {
	printf '%s=%s\n' "$1" "$2" >>"$facts"
	printf -v "$1" %s "$2"
}

load_facts() {
	[ -f "$facts" ] || fail "no node in $run: bring one up with tests/node/up (NODE_RUN names its directory)"
	local key value
	while IFS='=' read -r key value; do
		printf -v "$key" %s "$value"
	done <"$facts"
}

# wait_until SECONDS WHAT COMMAND…: until the command succeeds. When it does not in time, or a
# program of the node has ended meanwhile, says what it said last.
wait_until() {
	local bound=$1 what=$2 last=''
	shift 2
	local end=$((SECONDS + bound))
	until last=$("$@" 2>&1); do
		ended_programs
		[ "$SECONDS" -lt "$end" ] || fail "waited ${bound} s for $what; the last answer: ${last:-nothing}. Logs: $run/log"
		sleep 0.1
	done
}

# A program (of the node, or of the outside host at hand) that has ended by itself: there is nothing
# to wait for then.
ended_programs() {
	local file
	for file in "${pids:-$run/pid}"/*; do
		[ -e "$file" ] || continue
		# One that ended stays in /proc until its parent asked how.
		grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$(cat "$file")/status" ||
			fail "${file##*/} has ended; the end of its log: $(tail -n 5 "$run/log/${log_prefix:-}${file##*/}.log")"
	done
}

# now_ms: milliseconds, for figures only.
now_ms() {
	local t=${EPOCHREALTIME/./}
	echo $((t / 1000))
}

# tenths MILLISECONDS: seconds with one decimal place.
tenths() {
	echo "$(($1 / 1000)).$(($1 % 1000 / 100))"
}

. "$here/parts/cgroups.sh"
. "$here/parts/spaces.sh"

# Sourced by lib.sh. The node's namespaces, and how programs get into them.
#
# The node has a network namespace (named, so that `ip -n` and `nsenter --net` reach it) and a mount
# namespace, held by a process that does nothing else. In its mounts /run, /var/lib and /var/log are
# the run's own, so that kubelet, containerd and the network plugins use the paths of every other
# node, and yet touch nothing of this machine's. All of the node's mounts (a layer and a token for
# each container) go when its last process goes: nothing has to be unmounted, even after a crash.

# What kubelet sets for the whole machine when it finds it different, with the values it wants. A
# file of ours lies over each, so that the machine keeps its own.
kernel_settings='kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000
	kernel/keys/root_maxbytes=25000000 vm/overcommit_memory=1 vm/panic_on_oom=0'

make_mounts() {
	local setting file
	mkdir -p "$run"/{var-lib/kubelet,var-lib/cni,var-log,sysctl}
	for setting in $kernel_settings; do
		file=$run/sysctl/${setting%%=*}
		mkdir -p "${file%/*}"
		echo "${setting#*=}" >"$file"
	done
	start_raw mounts unshare --mount --propagation private -- bash -euc '
		run=$1
		shift
		mount --bind "$run/var-lib" /var/lib
		mount --bind "$run/var-log" /var/log
		mount -t tmpfs -o mode=755 tmpfs /run
		for setting; do mount --bind "$run/sysctl/${setting%%=*}" "/proc/sys/${setting%%=*}"; done
		# Kubelet hands mounts on to containers that ask for it.
		mount --make-rshared /
		: >"$run/mounts-made"
		exec sleep infinity' mounts "$run" $kernel_settings
	fact MOUNTS_PID "$(cat "$run/pid/mounts")"
	wait_until 10 "the node's mounts" test -e "$run/mounts-made"
}

# start_raw NAME COMMAND…: a program in the background, in the run's cgroup (its part $group), with
# a log. It holds none of the caller's files, so that `x=$(tests/node/up)` ends.
start_raw() {
	local name=$1 pids=${pids:-$run/pid}
	shift
	mkdir -p "$pids" "$run/log"
	rm -f "$pids/$name"
	(
		join_cgroup "${group:-system}"
		echo "$BASHPID" >"$pids/$name"
		exec setsid "$@"
	) >>"$run/log/${log_prefix:-}$name.log" 2>&1 </dev/null 9>&- &
	disown
	wait_until 5 "$name to start" test -s "$pids/$name"
}

# start NAME COMMAND…: likewise, on the node.
start() {
	local name=$1
	shift
	start_raw "$name" "${into_node[@]}" "$@"
}

# The words that go before a command of the node. nsenter, not `ip netns exec`: that mounts a /sys
# of its own, which hides the cgroups from the kubelet.
set_into_node() {
	into_node=(nsenter "--net=/run/netns/$NETNS" "--mount=/proc/$MOUNTS_PID/ns/mnt" --)
}

# The hardware address that goes with an address: whoever knew an earlier host of the same address would send to that
# one's for half a minute.
hardware_of() {
	printf '02:00:%02x:%02x:%02x:%02x' ${1//./ }
}

kubectl() {
	"$KUBECTL" --kubeconfig "$KUBECONFIG" --cache-dir "$run/kubectl-cache" "$@"
}

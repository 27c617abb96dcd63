# Sourced by `host`. Hosts "outside the cluster": each a network namespace on the node's bridge, a
# directory of the run, and a part of its cgroup.

use_host() {
	host=$1
	[[ "$host" =~ ^[a-z][a-z0-9-]{0,19}$ ]] || fail "\"$host\" is no name for a host: a letter, then up to 19 letters, digits and hyphens"
	space=$NAME-$host
	dir=$run/hosts/$host
	# Where start_raw puts what belongs to this host.
	group=host-$host
	pids=$dir/pid
	log_prefix=$host-
}

need_host() {
	use_host "$1"
	[ -f "$dir/ip" ] || fail "no host \"$host\": add it with host add $host"
	ip=$(cat "$dir/ip")
}

free_ip() {
	local last
	for last in $(seq 10 250); do
		grep -qsx "$LAN_PREFIX.$last" "$run"/hosts/*/ip || {
			echo "$LAN_PREFIX.$last"
			return
		}
	done
	fail "no free address in $LAN_CIDR"
}

add_host() {
	use_host "$1"
	[ ! -f "$dir/ip" ] || fail "there is a host \"$host\" already"
	ip=${2:-$(free_ip)}
	[[ "$ip" == "$LAN_PREFIX".* ]] || fail "$ip is not in $LAN_CIDR"
	! grep -qsx "$ip" "$run"/hosts/*/ip || fail "$ip has a host already"
	mkdir -p "$dir"
	local leg="h${ip##*.}"
	ip netns add "$space"
	ip -n "$NETNS" link add "$leg" type veth peer name eth0 address "$(hardware_of "$ip")" netns "$space"
	ip -n "$NETNS" link set "$leg" master "$BRIDGE" up
	ip -n "$space" link set lo up
	ip -n "$space" address add "$ip/24" dev eth0
	ip -n "$space" link set eth0 up
	# Pods and services, by way of the node; nothing else is anywhere.
	ip -n "$space" route add 198.18.0.0/15 via "$NODE_IP"
	echo "$ip" >"$dir/ip"
}

remove_host() {
	end_members "$group" 0
	ip netns delete "$space"
	remove_cgroups "$group"
	rm -rf --one-file-system "$dir"
}

# The words that go before a command of the host: its network, and mounts of its own in which /srv
# is its directory (the way to the real one may be closed to the server's user) and shared memory is
# nobody else's, so that a server that was killed leaves none behind.
into_host() {
	into=(nsenter "--net=/run/netns/$space" -- unshare --mount --ipc --propagation private -- sh -euc '
		mount --bind "$1" /srv
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		cd /srv
		shift
		exec "$@"' sh "$dir")
}

run_in_host() {
	into_host
	"${into[@]}" "$@"
}

# Programs that somebody killed are none that ended by surprise.
forget_ended() {
	local file running
	running=$(members "$group")
	for file in "$pids"/*; do
		[ ! -e "$file" ] || grep -qx "$(cat "$file")" <<<"$running" || rm -f "$file"
	done
}

# start_in_host PROGRAM COMMAND…: the log is log/HOST-PROGRAM.log.
start_in_host() {
	local program=$1
	shift
	forget_ended
	[ ! -e "$pids/$program" ] || fail "$program runs on $host already: host kill $host ends it"
	into_host
	start_raw "$program" "${into[@]}" "$@"
}

as_user() {
	local user=$1
	shift
	run_in_host setpriv "--reuid=$user" "--regid=$user" --init-groups -- "$@"
}

# Packets are dropped without a word, as a firewall does it, in both directions.
drop_packets() {
	nsenter "--net=/run/netns/$space" nft -f - <<-'END'
		table inet faults
		delete table inet faults
		table inet faults {
			chain in { type filter hook input priority 0; policy drop; iif lo accept; }
			chain out { type filter hook output priority 0; policy drop; oif lo accept; }
		}
	END
}

pass_packets() {
	nsenter "--net=/run/netns/$space" nft -f - <<-'END'
		table inet faults
		delete table inet faults
	END
}

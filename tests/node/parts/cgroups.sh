# Sourced by lib.sh. Every process of a run, the pods' included, lives below one cgroup that bears
# the run's NAME. So `down` finds each of them by what the kernel says now, never by an old number
# in a file or by a program's name, however the program was started and whoever its parent was.

# Where hierarchies are mounted: one on v2, one a controller on v1.
cgroup_roots() {
	awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/self/mounts | sort -u
}

# The hierarchy that is asked who is in a run. With v1 any that kubelet and runc manage will do.
cgroup_book() {
	local root=/sys/fs/cgroup
	if [ "$(stat -f -c %T $root)" = cgroup2fs ]; then
		echo $root
	elif [ -d $root/pids ]; then
		echo $root/pids
	else
		echo $root/systemd
	fi
}

# The kubelet wants its root in each hierarchy and makes none itself.
make_cgroups() {
	local root
	for root in $(cgroup_roots); do
		mkdir -p "$root/$NAME"
		[ ! -e "$root/$NAME/cgroup.controllers" ] || hand_down "$root" "$root/$NAME"
	done
}

# On v2 a controller reaches below only where each group on the way hands it down. What the root
# then hands down more than before stays: it changes nothing for those who do not ask.
hand_down() {
	local group controller
	for group; do
		for controller in cpu cpuset io memory pids hugetlb; do
			grep -qw "$controller" "$group/cgroup.subtree_control" || ! grep -qw "$controller" "$group/cgroup.controllers" ||
				echo "+$controller" >"$group/cgroup.subtree_control"
		done
	done
}

# join_cgroup PART: puts the calling shell, and what it becomes, into a part of the run.
join_cgroup() {
	local dir
	dir=$(cgroup_book)/$NAME/$1
	mkdir -p "$dir"
	echo "$BASHPID" >"$dir/cgroup.procs"
}

# members [PART]: the processes of a run, or of one part of it.
members() {
	local dir
	dir=$(cgroup_book)/$NAME${1:+/$1}
	[ ! -d "$dir" ] || find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

signal_members() {
	local signal=$1 pid
	for pid in $(members "${2:-}"); do
		kill "-$signal" "$pid" 2>/dev/null || true
	done
}

no_members() {
	[ -z "$(members "${1:-}")" ]
}

# end_members PART GRACE: asks, waits GRACE seconds, kills, and waits until all are gone. A process
# may fork between the listing and the kill: so again until the list is empty.
end_members() {
	local part=$1 end
	end=$((SECONDS + $2))
	[ "$2" = 0 ] || signal_members TERM "$part"
	while ! no_members "$part" && [ "$SECONDS" -lt "$end" ]; do sleep 0.05; done
	end=$((SECONDS + 20))
	while ! no_members "$part"; do
		signal_members KILL "$part"
		[ "$SECONDS" -lt "$end" ] || fail "these processes of $NAME do not end: $(members "$part" | tr '\n' ' ')"
		sleep 0.05
	done
}

# remove_cgroups [PART]: deepest first. A group stays busy for a moment after its last process.
remove_cgroups() {
	local root end=$((SECONDS + 10))
	for root in $(cgroup_roots); do
		while [ -d "$root/$NAME${1:+/$1}" ]; do
			find "$root/$NAME${1:+/$1}" -depth -type d -exec rmdir {} + 2>/dev/null && continue
			[ "$SECONDS" -lt "$end" ] || fail "cannot remove the cgroup $root/$NAME: something is still in it"
			sleep 0.05
		done
	done
}

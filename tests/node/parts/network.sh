# Sourced by `up`. The node's network: one bridge in its namespace, with a leg to this machine.
#
#   this machine  .1 ─┐
#   the node      .2 ─┼─ bridge "lan", 198.18.X.0/24
#   outside hosts .Y ─┘       pods 198.18.X+1.0/24, services 198.19.Z.0/24, both by way of the node
#
# All of it is out of 198.18.0.0/15 (RFC 2544, for tests: nobody's address), and no namespace has a
# way to anywhere else: nothing can leave.

# The first free number of 16 makes the run's name and addresses; who makes the namespace has it.
take_slot() {
	local slot
	for slot in $(seq 0 15); do
		if ip netns add "hcn$slot" 2>/dev/null; then
			fact NAME "hcn$slot"
			fact NETNS "hcn$slot"
			fact BRIDGE lan
			fact LAN_PREFIX "198.18.$((slot * 8))"
			fact LAN_CIDR "$LAN_PREFIX.0/24"
			fact HOST_IP "$LAN_PREFIX.1"
			fact NODE_IP "$LAN_PREFIX.2"
			fact POD_CIDR "198.18.$((slot * 8 + 1)).0/24"
			fact SERVICE_PREFIX "198.19.$slot"
			fact SERVICE_CIDR "$SERVICE_PREFIX.0/24"
			fact DNS_IP "$SERVICE_PREFIX.10"
			return
		fi
	done
	fail "no free network namespace of hcn0 to hcn15: are 16 nodes up? See \`ip netns\`; tests/node/down --name hcn0 removes one whose directory is lost"
}

make_network() {
	local in=(ip -n "$NETNS")
	"${in[@]}" link set lo up
	# Left alone a bridge takes the lowest address of its ports, and so another one when a host comes or goes: who
	# knew the former would send there for half a minute.
	"${in[@]}" link add "$BRIDGE" address "$(hardware_of "$NODE_IP")" type bridge
	"${in[@]}" address add "$NODE_IP/24" dev "$BRIDGE"
	"${in[@]}" link set "$BRIDGE" up
	"${in[@]}" route add unreachable default
	node_sysctl net/ipv4/ip_forward 1
	# Without it a pod that reaches another of its own bridge by way of a Service gets the answer
	# from an address it never asked.
	node_sysctl net/bridge/bridge-nf-call-iptables 1

	ip link add "$NAME" type veth peer name machine netns "$NETNS"
	"${in[@]}" link set machine master "$BRIDGE" up
	ip address add "$HOST_IP/24" dev "$NAME"
	ip link set "$NAME" up
	ip route add "$POD_CIDR" via "$NODE_IP"
	ip route add "$SERVICE_CIDR" via "$NODE_IP"
}

# These settings belong to the network namespace, not to the machine.
node_sysctl() {
	nsenter "--net=/run/netns/$NETNS" sh -c 'echo "$2" >"/proc/sys/$1"' sh "$1" "$2" ||
		fail "cannot set $1: does the kernel have it (modprobe br_netfilter)?"
}

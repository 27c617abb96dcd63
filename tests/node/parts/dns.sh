# Sourced by `up`. CoreDNS as the cluster's resolver, and the names of outside hosts.

names_dir=$run/names

# Both zones apart: within one zone CoreDNS' own order of plugins decides who answers.
apply_dns() {
	mkdir -p "$names_dir"
	: >"$names_dir/hosts"
	sed -e "s#@DNS_IP@#$DNS_IP#g" -e "s#@NAMES_DIR@#$names_dir#g" "$here/manifests/coredns.yaml" |
		kubectl apply --filename -
}

# Asked from this machine, by way of the Service: so kube-proxy and the ways back are shown too.
dns_answers() {
	busybox timeout 2 busybox nslookup kubernetes.default.svc.cluster.local "$DNS_IP" | grep -F "$SERVICE_PREFIX.1"
}

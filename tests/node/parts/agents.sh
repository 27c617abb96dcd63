# Sourced by `up`. kubelet and kube-proxy.

write_kubelet_config() {
	: >"$run/config/resolv.conf" # pods of dnsPolicy Default have no resolver: nothing may leave
	cat >"$run/config/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		address: $NODE_IP
		authentication:
		  anonymous: {enabled: false}
		  webhook: {enabled: true}
		  x509: {clientCAFile: $pki/ca.crt}
		authorization: {mode: Webhook}
		cgroupDriver: cgroupfs
		cgroupRoot: /$NAME
		failCgroupV1: false # it would not start on v1; means nothing on v2
		failSwapOn: false
		clusterDNS: [$DNS_IP]
		clusterDomain: cluster.local
		resolvConf: $run/config/resolv.conf
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		localStorageCapacityIsolation: false # the run's file system need not be one it can measure
		volumePluginDir: /var/lib/kubelet/volume-plugins
		# The disk is the developer's own: that it is nearly full is no reason to evict a pod, or to
		# remove an image that no registry has.
		evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
		imageGCHighThresholdPercent: 100
		imageGCLowThresholdPercent: 99
	END
}

start_kubelet() {
	write_kubelet_config
	start kubelet "$programs/kubelet" --config="$run/config/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
		--root-dir=/var/lib/kubelet --cert-dir="$pki/kubelet-serving" --node-ip="$NODE_IP" --hostname-override="$NODE"
}

start_proxy() {
	cat >"$run/config/kube-proxy.yaml" <<-END
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: nftables
		bindAddress: $NODE_IP
		clientConnection: {kubeconfig: $pki/kube-proxy.kubeconfig}
		clusterCIDR: $POD_CIDR
		detectLocalMode: ClusterCIDR
		hostnameOverride: $NODE
		conntrack: {maxPerCore: 0} # the machine's own limit stays
	END
	start kube-proxy "$programs/kube-proxy" --config="$run/config/kube-proxy.yaml"
}

node_ready() {
	kubectl wait --for=condition=Ready --timeout=1s "node/$NODE"
}

# Sourced by `up`. containerd with the pods' network, and the images.

# Layers cannot lie on an overlay that is itself one, such as a container's root.
snapshotter() {
	if [ "$(stat -f -c %T "$run")" = overlayfs ]; then echo native; else echo overlayfs; fi
}

write_runtime_config() {
	mkdir -p "$run/config/cni"
	cat >"$run/config/containerd.toml" <<-END
		version = 2
		root = "/var/lib/containerd"
		state = "/run/containerd"
		[grpc]
		  address = "/run/containerd/containerd.sock"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "/var/lib/containerd/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/library/node-tools:1"
		  # The machine's own processes may have been given a floor that we cannot go below.
		  restrict_oom_score_adj = true
		  netns_mounts_under_state_dir = true
		[plugins."io.containerd.grpc.v1.cri".containerd]
		  snapshotter = "$(snapshotter)"
		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		  runtime_type = "io.containerd.runc.v2"
		[plugins."io.containerd.grpc.v1.cri".cni]
		  bin_dir = "/usr/lib/cni"
		  conf_dir = "$run/config/cni"
	END
	# No masquerading: outside hosts know the way back to a pod, and see which pod it was.
	cat >"$run/config/cni/10-pods.conflist" <<-END
		{"cniVersion": "1.0.0", "name": "pods", "plugins": [
		  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
		   "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/networks",
		            "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
	END
}

start_runtime() {
	write_runtime_config
	start containerd containerd --config "$run/config/containerd.toml"
}

ctr() {
	"${into_node[@]}" ctr --address /run/containerd/containerd.sock --namespace k8s.io "$@"
}

import_image() {
	ctr images import --snapshotter "$(snapshotter)" "$1"
}

# import_images DIR…: every archive in them.
import_images() {
	local dir archive
	for dir; do
		for archive in "$dir"/*.tar; do import_image "$archive"; done
	done
}

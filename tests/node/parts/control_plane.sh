# Sourced by `up`. etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

start_etcd() {
	local args=(
		--data-dir="$run/etcd"
		--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379
		--listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380
		--initial-cluster=default=http://127.0.0.1:2380 --log-level=warn
		# The data need not outlive the machine, and slow disks would be waited for.
		--unsafe-no-fsync
	)
	start etcd "$programs/etcd" "${args[@]}"
}

# Who asked for what, in full for writes that are no secret: tests count writes in it.
write_audit_policy() {
	cat >"$run/audit-policy.yaml" <<-'END'
		apiVersion: audit.k8s.io/v1
		kind: Policy
		omitStages: [RequestReceived]
		rules:
		- level: Metadata
		  resources:
		  - group: ""
		    resources: [secrets, configmaps, serviceaccounts/token]
		  - group: authentication.k8s.io
		- level: Request
		  verbs: [create, update, patch, delete, deletecollection]
		- level: Metadata
	END
	fact AUDIT_LOG "$run/log/audit.log"
}

start_api_server() {
	write_audit_policy
	local args=(
		--etcd-servers=http://127.0.0.1:2379
		--advertise-address="$NODE_IP" --secure-port=6443
		--tls-cert-file="$pki/kube-apiserver.crt" --tls-private-key-file="$pki/kube-apiserver.key"
		--client-ca-file="$pki/ca.crt"
		--kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key"
		# No resolver here knows the node by its name.
		--kubelet-preferred-address-types=InternalIP
		--service-account-issuer=https://kubernetes.default.svc.cluster.local
		--service-account-key-file="$pki/service-accounts.pub"
		--service-account-signing-key-file="$pki/service-accounts.key"
		--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
		--service-cluster-ip-range="$SERVICE_CIDR"
		--audit-policy-file="$run/audit-policy.yaml" --audit-log-path="$AUDIT_LOG"
		# Entries are there when they are looked for, and the file is not turned over.
		--audit-log-mode=blocking --audit-log-maxsize=4096
	)
	start kube-apiserver "$programs/kube-apiserver" "${args[@]}"
}

start_controllers() {
	local args=(
		--kubeconfig="$pki/kube-controller-manager.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false
		--use-service-account-credentials=true --root-ca-file="$pki/ca.crt"
		--service-account-private-key-file="$pki/service-accounts.key" --kube-api-qps=200 --kube-api-burst=400
		# It makes the directory, by default one below this machine's /usr.
		--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins
	)
	start kube-controller-manager "$programs/kube-controller-manager" "${args[@]}"
	start kube-scheduler "$programs/kube-scheduler" --kubeconfig="$pki/kube-scheduler.kubeconfig" \
		--bind-address=127.0.0.1 --leader-elect=false
}

api_ready() {
	kubectl get --raw /readyz
}

# Sourced by `up`. The cluster's authority, what it signed, and a kubeconfig for each client.

pki=$run/pki

new_key() {
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
	chmod 600 "$1"
}

make_authority() {
	mkdir -p "$pki"
	new_key "$pki/ca.key"
	openssl req -x509 -new -key "$pki/ca.key" -subj /CN=healthcheck-operator-node -days 365 -out "$pki/ca.crt"
	new_key "$pki/service-accounts.key"
	openssl pkey -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub"
}

# sign FILE SUBJECT EXTENSIONS: Kubernetes reads CN as the user and O as the group.
sign() {
	local file=$pki/$1
	new_key "$file.key"
	openssl req -new -key "$file.key" -subj "$2" |
		openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -days 365 -out "$file.crt" \
			-extfile <(printf '%s\n' 'keyUsage=digitalSignature' "$3") 2>/dev/null
}

sign_client() {
	sign "$1" "$2" 'extendedKeyUsage=clientAuth'
	write_kubeconfig "$1" "$pki/$1.kubeconfig"
}

# The keys are inside the file, so that a copy of it elsewhere works.
write_kubeconfig() {
	(
		umask 077
		cat >"$2" <<-END
			apiVersion: v1
			kind: Config
			clusters:
			- name: $NAME
			  cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
			users:
			- name: $1
			  user: {client-certificate-data: $(base64 -w0 "$pki/$1.crt"), client-key-data: $(base64 -w0 "$pki/$1.key")}
			contexts:
			- name: $NAME
			  context: {cluster: $NAME, user: $1}
			current-context: $NAME
		END
	)
}

make_certificates() {
	local names=IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_PREFIX.1,DNS:localhost
	make_authority
	sign kube-apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth
subjectAltName=$names,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
	sign kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client 'extendedKeyUsage=clientAuth'
	sign_client admin /O=system:masters/CN=admin
	sign_client kube-controller-manager /CN=system:kube-controller-manager
	sign_client kube-scheduler /CN=system:kube-scheduler
	sign_client kube-proxy /CN=system:kube-proxy
	sign_client kubelet "/O=system:nodes/CN=system:node:$NODE"
	fact KUBECONFIG "$run/kubeconfig"
	write_kubeconfig admin "$KUBECONFIG"
}

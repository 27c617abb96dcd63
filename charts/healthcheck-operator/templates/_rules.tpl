{{/* What the operator does to namespaced objects, in the namespaces it watches. */}}
{{- define "hco.namespacedRules" -}}
{{- $v := .Values -}}
- apiGroups: [healthcheck-operator.dev]
  resources: [healthchecks]
  verbs: [get, list, watch]
- apiGroups: [healthcheck-operator.dev]
  resources: [healthchecks/status]
  verbs: [patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch{{ if or $v.features.annotations $v.features.endpointSlices }}, patch{{ end }}{{ if $v.features.endpointSlices }}, create, delete{{ end }}]
- apiGroups: [""]
  resources: [pods, services]
  verbs: [list, watch]
{{- if $v.features.podReadiness }}
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
# By name, when a check refers to one; never listed or watched.
- apiGroups: [""]
  resources: [configmaps{{ if eq $v.rbac.secrets "Cluster" }}, secrets{{ end }}]
  verbs: [get]
{{- if $v.features.events }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- end }}

{{/* What is cluster-scoped whatever the operator watches. */}}
{{- define "hco.clusterRules" -}}
# Who asks on the admin port, and whether they may.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
# Kubelet ports on node addresses are denied to probes.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}

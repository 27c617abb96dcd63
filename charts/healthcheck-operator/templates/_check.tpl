{{/* Refuses values that are well-formed one by one but make no sense together, each with its mend. */}}
{{- define "hco.check" -}}
{{- $v := .Values }}
{{- /* The bounds of `controller` itself, said before a pod fails to start. */}}
{{- $duration := include "hco.milliseconds" $v.lease.duration | int64 }}
{{- $renew := include "hco.milliseconds" $v.lease.renew | int64 }}
{{- $refresh := include "hco.milliseconds" $v.statusRefresh | int64 }}
{{- if or (lt $duration 3000) (gt $duration 600000) }}
{{- fail (printf "lease.duration (%s) must be between 3s and 10m" $v.lease.duration) }}
{{- end }}
{{- if or (lt $renew 500) (gt (mul 5 $renew) (mul 4 $duration)) }}
{{- fail (printf "lease.renew (%s) must be at least 500ms and at most four fifths of lease.duration (%s), so that a renewal may fail once" $v.lease.renew $v.lease.duration) }}
{{- end }}
{{- if or (lt $refresh 10000) (gt $refresh 86400000) }}
{{- fail (printf "statusRefresh (%s) must be between 10s and 24h" $v.statusRefresh) }}
{{- end }}
{{- if not $v.scripts.enabled }}
{{- range $key := list "registry" "tag" "digest" "pullPolicy" }}
{{- if get $v.runner.image $key }}
{{- fail (printf "runner.image.%s is set, but scripts.enabled is false, so there is no runner: set scripts.enabled=true or remove runner.image.%s" $key $key) }}
{{- end }}
{{- end }}
{{- if eq $v.runner.mode "Deployment" }}
{{- fail "runner.mode is Deployment, but scripts.enabled is false, so there is no runner: set scripts.enabled=true or remove runner.mode" }}
{{- end }}
{{- range $key := list "extraArgs" "extraEnv" "extraVolumeMounts" }}
{{- if get $v.runner $key }}
{{- fail (printf "runner.%s is set, but scripts.enabled is false, so there is no runner: set scripts.enabled=true or remove runner.%s" $key $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne (empty $v.runner.tls.serverSecretName) (empty $v.runner.tls.clientSecretName) }}
{{- fail "runner.tls has one of serverSecretName and clientSecretName: give both, or none for a pair that the chart makes" }}
{{- end }}
{{- if and $v.runner.tls (ne $v.runner.mode "Deployment") }}
{{- fail "runner.tls is set, but runner.mode is Sidecar, where nothing is asked over TLS: set runner.mode=Deployment or remove runner.tls" }}
{{- end }}
{{- $pdb := $v.podDisruptionBudget }}
{{- if and (ne (toString $pdb.minAvailable) "") (ne (toString $pdb.maxUnavailable) "") }}
{{- fail "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both set: keep one, Kubernetes refuses the two together" }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
{{- fail "httpRoute.enabled is true, but httpRoute.parentRefs is empty: name the Gateway the route joins" }}
{{- end }}
{{- if and $v.serviceMonitor.enabled $v.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both true: keep one, or every sample is scraped twice" }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) $v.rbac.create }}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: name the ServiceAccount to use, so that the chart does not grant its permissions to every pod that runs as `default`" }}
{{- end }}
{{- range $v.extraVolumes }}
{{- if has .name (list "api-access" "tls" "runner-socket" "runner-tmp" "runner-program" "runner-tls") }}
{{- fail (printf "extraVolumes: the name %s is the chart's own: choose another" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses values that are well-formed one by one but make no sense together, each with its mend. */}}
{{- define "hco.check" -}}
{{- $v := .Values }}
{{- if ge (include "hco.milliseconds" $v.lease.renew | int64) (include "hco.milliseconds" $v.lease.duration | int64) }}
{{- fail (printf "lease.renew (%s) must be shorter than lease.duration (%s): a replica has to step down before another may take over" $v.lease.renew $v.lease.duration) }}
{{- end }}
{{- if not $v.scripts.enabled }}
{{- range $key := list "registry" "tag" "digest" "pullPolicy" }}
{{- if get $v.runner.image $key }}
{{- fail (printf "runner.image.%s is set, but scripts.enabled is false, so there is no runner: set scripts.enabled=true or remove runner.image.%s" $key $key) }}
{{- end }}
{{- end }}
{{- range $key := list "extraEnv" "extraVolumeMounts" }}
{{- if get $v.runner $key }}
{{- fail (printf "runner.%s is set, but scripts.enabled is false, so there is no runner: set scripts.enabled=true or remove runner.%s" $key $key) }}
{{- end }}
{{- end }}
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
{{- if has .name (list "api-access" "tls" "runner-socket" "runner-tmp") }}
{{- fail (printf "extraVolumes: the name %s is the chart's own: choose another" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Arguments of `controller`, one a line, as YAML. */}}
{{- define "hco.args" -}}
{{- $v := .Values }}
{{- $args := list "controller"
  (printf "--log-level=%s" $v.logLevel)
  (printf "--log-format=%s" $v.logFormat)
  (printf "--lease-name=%s" (include "hco.fullname" .))
  (printf "--lease-duration=%s" $v.lease.duration)
  (printf "--lease-renew=%s" $v.lease.renew)
  (printf "--status-refresh=%s" $v.statusRefresh)
  (printf "--healthy-code=%d" (int $v.http.healthyCode))
  (printf "--degraded-code=%d" (int $v.http.degradedCode))
  (printf "--unhealthy-code=%d" (int $v.http.unhealthyCode))
  (printf "--unknown-code=%d" (int $v.http.unknownCode))
  (printf "--details=%s" $v.http.details)
  (printf "--max-in-flight-per-host=%d" (int $v.engine.maxInFlightPerHost)) }}
{{- if $v.engine.maxInFlight }}{{ $args = append $args (printf "--max-in-flight=%d" (int $v.engine.maxInFlight)) }}{{ end }}
{{- if $v.http.healthyBody }}{{ $args = append $args (printf "--healthy-body=%s" $v.http.healthyBody) }}{{ end }}
{{- if $v.http.unhealthyBody }}{{ $args = append $args (printf "--unhealthy-body=%s" $v.http.unhealthyBody) }}{{ end }}
{{- if $v.http.selfHealth.enabled }}
{{- $args = append $args (printf "--health-path=%s" $v.http.selfHealth.path) }}
{{- else }}
{{- $args = append $args "--disable-health" }}
{{- end }}
{{- range $v.http.accessLogSkip }}{{ $args = append $args (printf "--access-log-skip=%s" .) }}{{ end }}
{{- if $v.http.tlsSecretName }}
{{- $args = concat $args (list "--tls-cert=/etc/healthcheck-operator/tls/tls.crt" "--tls-key=/etc/healthcheck-operator/tls/tls.key") }}
{{- end }}
{{- if $v.envoyAccessLog.enabled }}{{ $args = append $args "--envoy-listen=[::]:8083" }}{{ end }}
{{- range $v.watchNamespaces }}{{ $args = append $args (printf "--watch-namespace=%s" .) }}{{ end }}
{{- if $v.labelSelector }}{{ $args = append $args (printf "--label-selector=%s" $v.labelSelector) }}{{ end }}
{{- range $v.egress.allow }}{{ $args = append $args (printf "--egress-allow=%s" .) }}{{ end }}
{{- if not $v.features.annotations }}{{ $args = append $args "--disable-annotations" }}{{ end }}
{{- if not $v.features.endpointSlices }}{{ $args = append $args "--disable-endpoint-slices" }}{{ end }}
{{- if not $v.features.podReadiness }}{{ $args = append $args "--disable-pod-readiness" }}{{ end }}
{{- if not $v.features.events }}{{ $args = append $args "--disable-events" }}{{ end }}
{{- if $v.scripts.enabled }}
{{- $args = append $args "--allow-scripts" }}
{{- if include "hco.runnerApart" . }}
{{- $args = append $args (printf "--runner-address=%s:8443" (include "hco.runnerHost" .)) }}
{{- range $flag, $file := dict "ca" "ca.crt" "cert" "tls.crt" "key" "tls.key" }}
{{- $args = append $args (printf "--runner-%s=/etc/healthcheck-operator/runner-tls/%s" $flag $file) }}
{{- end }}
{{- else }}
{{- $args = append $args "--runner-socket=/run/healthcheck-operator/runner.sock" }}
{{- end }}
{{- end }}
{{- concat $args $v.extraArgs | toYaml }}
{{- end }}

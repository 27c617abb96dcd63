{{/* Whether scripts run in pods of their own: "true" or nothing. */}}
{{- define "hco.runnerApart" -}}
{{- if and .Values.scripts.enabled (eq .Values.runner.mode "Deployment") }}true{{ end }}
{{- end }}

{{/* Another name than the operator's pods: its Service must not send traffic to the runner's. */}}
{{- define "hco.runnerName" -}}
{{- printf "%s-runner" (include "hco.name" . | trunc 56 | trimSuffix "-") }}
{{- end }}

{{- define "hco.runnerSelectorLabels" -}}
app.kubernetes.io/name: {{ include "hco.runnerName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The names that the two certificates bear: the runner's, which the operator dials, and the operator's. */}}
{{- define "hco.runnerHost" -}}
{{- printf "%s-runner.%s.svc" (include "hco.fullname" .) .Release.Namespace }}
{{- end }}
{{- define "hco.runnerClient" -}}
{{- printf "%s-controller.%s.svc" (include "hco.fullname" .) .Release.Namespace }}
{{- end }}
{{- define "hco.runnerServerSecret" -}}
{{- .Values.runner.tls.serverSecretName | default (printf "%s-runner-tls" (include "hco.fullname" .)) }}
{{- end }}
{{- define "hco.runnerClientSecret" -}}
{{- .Values.runner.tls.clientSecretName | default (printf "%s-client-tls" (include "hco.fullname" .)) }}
{{- end }}

{{/*
What every runner is restricted to, and a user of its own: its socket is open to its group, which is that of the
operator's image, so that the operator may ask it and a script is still somebody else.
*/}}
{{- define "hco.runnerSecurityContext" -}}
{{- include "hco.containerSecurityContext" . }}
{{- with .Values.runner.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: 65532
{{- end }}
{{- end }}

{{/* The container that runs scripts: an image of its own, no token, no API, a read-only root. */}}
{{- define "hco.runner" -}}
{{- $v := .Values }}
{{- $apart := include "hco.runnerApart" . }}
- name: runner
  image: {{ include "hco.image" (dict "root" . "image" $v.runner.image "registry" $v.image.registry) | quote }}
  imagePullPolicy: {{ default $v.image.pullPolicy $v.runner.image.pullPolicy }}
  {{- if $apart }}
  # Whatever the image is, this is the operator's own binary, of the operator's own version.
  command: [/opt/healthcheck-operator/healthcheck-operator]
  {{- else }}
  restartPolicy: Always
  {{- end }}
  args:
    - runner
    - --socket=/run/healthcheck-operator/runner.sock
    - --log-level={{ $v.logLevel }}
    - --log-format={{ $v.logFormat }}
    {{- with $v.runner.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $given := dict }}
  {{- range $v.runner.extraEnv }}{{ $_ := set $given .name true }}{{ end }}
  {{- $limits := dict "HEALTHCHECK_OPERATOR_SCRIPT_MEMORY" $v.runner.scriptMemory "HEALTHCHECK_OPERATOR_SCRIPT_FILE_SIZE" $v.runner.scriptFileSize }}
  env:
    # As variables: a flag of extraArgs goes before.
    {{- range $name, $limit := $limits }}
    {{- if and $limit (not (hasKey $given $name)) }}
    - name: {{ $name }}
      value: {{ $limit | quote }}
    {{- end }}
    {{- end }}
    {{- with $v.runner.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $v.runner.resources | nindent 4 }}
  securityContext:
    {{- include "hco.runnerSecurityContext" . | nindent 4 }}
  volumeMounts:
    - name: runner-socket
      mountPath: /run/healthcheck-operator
    - name: runner-tmp
      mountPath: /tmp
    {{- if $apart }}
    - name: runner-program
      mountPath: /opt/healthcheck-operator
      readOnly: true
    {{- end }}
    {{- with $v.runner.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The volumes that a runner has wherever it is. */}}
{{- define "hco.runnerVolumes" -}}
- name: runner-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
# In memory, so that it is full when it is full: of one on a disk the kubelet measures the size now and then, and evicts
# the whole pod.
- name: runner-tmp
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.runner.tmpSizeLimit }}
{{- end }}

{{/*
The data of both Secrets, and since when, as JSON: of "server" and "client", the Secrets that there are, at the time "now".

Either side shows its certificate to the other, and kubelets bring changes at different times. So a year-old pair is
renewed in two upgrades: one brings the next authority to both sides, beside the one in use, and a later one the
certificates of that authority. Between the two lies an hour at least, which every kubelet has used.
*/}}
{{- define "hco.runnerPair" -}}
{{- $root := .root }}
{{- $server := .server | default dict }}
{{- $client := .client | default dict }}
{{- $now := int64 .now }}
{{- $annotations := dig "metadata" "annotations" dict $server | default dict }}
{{- $made := int64 (get $annotations "healthcheck-operator.dev/made" | default "0") }}
{{- $next := int64 (get $annotations "healthcheck-operator.dev/next" | default "0") }}
{{- $data := dict "server" (deepCopy ($server.data | default dict)) "client" (deepCopy ($client.data | default dict)) }}
{{- $there := and $data.server $data.client }}
{{- if and $there (lt (sub $now $made) 31536000) }}
{{- /* As it is. */}}
{{- else if and $there $next (lt (sub $now $next) 3600) }}
{{- /* The next authority is on its way. */}}
{{- else if and $there $next (get $data.server "next.crt") (get $data.client "next.crt") }}
{{- $made = $next }}
{{- $next = 0 }}
{{- range $side, $_ := $data }}
{{- $own := get $data $side }}
{{- $_ := set $own "tls.crt" (get $own "next.crt") }}
{{- $_ := set $own "tls.key" (get $own "next.key") }}
{{- $_ := unset $own "next.crt" }}
{{- $_ := unset $own "next.key" }}
{{- end }}
{{- else }}
{{- /* Its key is thrown away: nobody can make a third certificate of this authority. */}}
{{- $ca := genCA (printf "%s-runner" (include "hco.fullname" $root)) 3650 }}
{{- range $side, $host := dict "server" (include "hco.runnerHost" $root) "client" (include "hco.runnerClient" $root) }}
{{- $pair := genSignedCert $host nil (list $host) 3650 $ca }}
{{- $own := get $data $side }}
{{- if $there }}
{{- /* From the last renewal on the first of those that are there is the one in use. */}}
{{- $used := regexFind "(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----" (b64dec (get $own "ca.crt")) }}
{{- $_ := set $own "next.crt" ($pair.Cert | b64enc) }}
{{- $_ := set $own "next.key" ($pair.Key | b64enc) }}
{{- $_ := set $own "ca.crt" (printf "%s%s\n" $ca.Cert $used | b64enc) }}
{{- else }}
{{- $_ := set $data $side (dict "tls.crt" ($pair.Cert | b64enc) "tls.key" ($pair.Key | b64enc) "ca.crt" ($ca.Cert | b64enc)) }}
{{- end }}
{{- end }}
{{- if $there }}{{ $next = $now }}{{ else }}{{ $made = $now }}{{ $next = 0 }}{{ end }}
{{- end }}
{{- dict "data" $data "made" (toString $made) "next" (toString $next) | toJson }}
{{- end }}

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
  {{- with $v.runner.extraEnv }}
  env:
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

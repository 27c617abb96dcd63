{{/* The chart's name, as label and as part of object names. */}}
{{- define "hco.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every object's name. At most 49 characters, so that the longest suffix fits 63. */}}
{{- define "hco.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 49 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 49 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 49 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hco.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hco.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What selects our pods, for ever: a Deployment's selector cannot be changed. */}}
{{- define "hco.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hco.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/*
Labels of an object. Takes (dict "root" $ "component" "controller" "extra" <map> "name" <other name>).
The standard labels win over what values add, because selectors and dashboards rely on them.
*/}}
{{- define "hco.labels" -}}
{{- $root := .root }}
{{- $standard := dict
  "app.kubernetes.io/name" (default (include "hco.name" $root) .name)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_")
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" $root.Chart.Name
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- merge $standard (deepCopy (default dict .extra)) (deepCopy $root.Values.commonLabels) | toYaml }}
{{- end }}

{{/* An image reference. Takes (dict "root" $ "image" <image values> "registry" <fallback registry>). */}}
{{- define "hco.image" -}}
{{- $registry := coalesce .root.Values.global.imageRegistry .image.registry .registry | default "" | trimSuffix "/" }}
{{- $name := .image.repository }}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{/* The same for every container: what the restricted Pod Security Standard asks for, and a read-only root. */}}
{{- define "hco.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* No user id: the images name theirs (65532) by number, and OpenShift chooses its own. */}}
{{- define "hco.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The service account's token as a volume, so that only the container that mounts it has it. */}}
{{- define "hco.tokenVolume" -}}
name: api-access
projected:
  defaultMode: 292 # 0444
  sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3600
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
    - downwardAPI:
        items:
          - path: namespace
            fieldRef:
              apiVersion: v1
              fieldPath: metadata.namespace
{{- end }}

{{- define "hco.tokenMount" -}}
name: api-access
mountPath: /var/run/secrets/kubernetes.io/serviceaccount
readOnly: true
{{- end }}

{{/* Who we are, for status, events and the Lease. */}}
{{- define "hco.identityEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}

{{/* A duration such as 1m30s in milliseconds. */}}
{{- define "hco.milliseconds" -}}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 }}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $sum = add $sum (mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/*
Whether an object of a kind that a cluster may not know is rendered: "true" or nothing.
Takes (dict "root" $ "value" "serviceMonitor" "api" "monitoring.coreos.com/v1/ServiceMonitor").
*/}}
{{- define "hco.renders" -}}
{{- $settings := index .root.Values .value }}
{{- if $settings.enabled }}
{{- $known := .root.Capabilities.APIVersions.Has .api }}
{{- if or $known (eq $settings.renderMode "alwaysRender") }}true
{{- else if eq $settings.renderMode "failIfMissing" }}
{{- fail (printf "%s.enabled is true, but this cluster does not know %s: install its CRD first, or set %s.renderMode to skipIfMissing or alwaysRender" .value .api .value) }}
{{- end }}
{{- end }}
{{- end }}

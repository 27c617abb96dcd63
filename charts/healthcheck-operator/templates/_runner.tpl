{{/* The container that runs scripts: an image of its own, no token, no API, a read-only root. */}}
{{- define "hco.runner" -}}
{{- $v := .Values }}
- name: runner
  image: {{ include "hco.image" (dict "root" . "image" $v.runner.image "registry" $v.image.registry) | quote }}
  imagePullPolicy: {{ default $v.image.pullPolicy $v.runner.image.pullPolicy }}
  restartPolicy: Always
  args:
    - runner
    - --socket=/run/healthcheck-operator/runner.sock
    - --log-level={{ $v.logLevel }}
    - --log-format={{ $v.logFormat }}
  {{- with $v.runner.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $v.runner.resources | nindent 4 }}
  securityContext:
    {{- include "hco.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    - name: runner-socket
      mountPath: /run/healthcheck-operator
    - name: runner-tmp
      mountPath: /tmp
    {{- with $v.runner.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

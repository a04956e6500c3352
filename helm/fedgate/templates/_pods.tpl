{{- /* What both kinds of pod have: dict "root" $ "component" "gateway" "values" .Values.gateway. */ -}}
{{- define "fedgate.podMetadata" -}}
labels:
  {{- /* Not the chart's version: a release that changes no pod leaves them alone. */}}
  {{- include "fedgate.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: fedgate
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A pod reads its configuration once, at its start: a change of it makes a new pod.
  checksum/config: {{ include (printf "fedgate.%sConfig" .component) .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "fedgate.podPlacement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fedgate.containerStart" -}}
image: {{ include "fedgate.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/usr/bin/fedgate-{{ .component }}]
args:
  - --config=/etc/fedgate/config.yaml
  - --log-format={{ .values.logFormat }}
  - {{ printf "--log-level=%s" .values.logLevel | quote }}
  {{- range .values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

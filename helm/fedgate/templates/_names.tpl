{{- /* First part of names. Not the release's name: a cluster has one installation, and a second one is to be refused. */ -}}
{{- define "fedgate.fullname" -}}
{{- .Values.fullnameOverride | default .Values.nameOverride | default "fedgate" -}}
{{- end -}}

{{- define "fedgate.trustDomain" -}}
{{- .Values.cluster.trustDomain | default (printf "%s.fedgate.internal" .Values.cluster.name) -}}
{{- end -}}

{{- /* Labels by which pods are found, by fedctl and the federation node too. `component` is passed in: dict "root" $ "component" "gateway". */ -}}
{{- define "fedgate.selectorLabels" -}}
app.kubernetes.io/name: fedgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "fedgate.labels" -}}
{{ include "fedgate.selectorLabels" . }}
app.kubernetes.io/part-of: fedgate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fedgate.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- /* The node's Service, as pods of the cluster find it by their resolver's search list. */ -}}
{{- define "fedgate.federationHost" -}}
{{ include "fedgate.fullname" . }}-federation.{{ .Release.Namespace }}.svc
{{- end -}}

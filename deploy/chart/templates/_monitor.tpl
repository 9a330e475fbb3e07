{{/* The endpoint of a PodMonitor or ServiceMonitor: its values. */}}
{{- define "external-endpoints.scrape" -}}
- port: admin
  path: /metrics
  honorLabels: {{ .honorLabels }}
  {{- with .interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  {{- include "external-endpoints.optional" (list 2 "relabelings" .relabelings) }}
  {{- include "external-endpoints.optional" (list 2 "metricRelabelings" .metricRelabelings) }}
{{- end }}

{{/* The metadata of an object for monitoring: the root, its values, its labels. */}}
{{- define "external-endpoints.monitoringMetadata" -}}
{{- $root := index . 0 }}
{{- $values := index . 1 }}
name: {{ include "external-endpoints.fullname" $root | quote }}
namespace: {{ default (include "external-endpoints.namespace" $root) $values.namespace | quote }}
labels:
  {{- include "external-endpoints.labels" (list $root (index . 2)) | nindent 2 }}
{{- include "external-endpoints.optional" (list 0 "annotations" $values.annotations) }}
{{- end }}

{{/* What both monitors select: the root and their values. */}}
{{- define "external-endpoints.monitored" -}}
{{- $root := index . 0 }}
{{- with (index . 1).jobLabel }}
jobLabel: {{ . }}
{{- end }}
namespaceSelector:
  matchNames: [{{ include "external-endpoints.namespace" $root | quote }}]
selector:
  matchLabels:
    {{- include "external-endpoints.selectorLabels" $root | nindent 4 }}
{{- end }}

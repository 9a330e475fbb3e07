{{/* The names, labels and settings that several templates share. */}}

{{/* The name of the chart. */}}
{{- define "external-endpoints.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The name of all objects. It has at most 56 characters, because `-config` is put behind it, and names
of Leases and labels have at most 63.
*/}}
{{- define "external-endpoints.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 56 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 56 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 56 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The namespace of the daemon. */}}
{{- define "external-endpoints.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* The labels by which the Deployment finds its Pods. They never change. */}}
{{- define "external-endpoints.selectorLabels" -}}
app.kubernetes.io/name: {{ include "external-endpoints.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/*
The labels of an object, as JSON of a list: the root, and the object's own labels. Labels of the
chart win over those of the values, so that selectors keep working.
*/}}
{{- define "external-endpoints.labels" -}}
{{- $root := index . 0 }}
{{- $own := default dict (index . 1) }}
{{- $fixed := include "external-endpoints.selectorLabels" $root | fromYaml }}
{{- $chart := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63)
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
}}
{{- mergeOverwrite (dict) (default dict $root.Values.commonLabels) $own $chart $fixed | toYaml }}
{{- end }}

{{/* The name of the ServiceAccount. */}}
{{- define "external-endpoints.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "external-endpoints.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The name of the Lease. */}}
{{- define "external-endpoints.lease" -}}
{{- default (include "external-endpoints.fullname" .) .Values.leaderElection.lease }}
{{- end }}

{{/* The name of the ConfigMap with the config. */}}
{{- define "external-endpoints.configMapName" -}}
{{- if .Values.existingConfigMap }}
{{- .Values.existingConfigMap }}
{{- else }}
{{- printf "%s-config" (include "external-endpoints.fullname" .) }}
{{- end }}
{{- end }}

{{/* The image with its digest or tag. */}}
{{- define "external-endpoints.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag | toString) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The number of the port in `listen`. */}}
{{- define "external-endpoints.port" -}}
{{- regexFind "[0-9]+$" .Values.listen }}
{{- end }}

{{/* A value as YAML under a key, or nothing if it is empty: the indentation, the key, the value. */}}
{{- define "external-endpoints.optional" -}}
{{- with index . 2 }}
{{- dict (index $ 1) . | toYaml | nindent (index $ 0) }}
{{- end }}
{{- end }}

{{/* Fails with words for values that contradict each other. */}}
{{- define "external-endpoints.validate" -}}
{{- $values := .Values }}
{{- if and $values.config $values.existingConfigMap }}
{{- fail "\n\nBoth `config` and `existingConfigMap` are set, and the daemon reads one of them. Remove the other.\n" }}
{{- end }}
{{- if not (or $values.config $values.existingConfigMap) }}
{{- fail "\n\nThere is no config. Write your databases into `config`, as in\n\n  config:\n    databases:\n    - service: mysql\n      namespace: prod\n      port: 3306\n      addresses: [10.20.0.11, 10.20.0.12]\n      check: {tcp: {}}\n\nor load them from a file with `--set-file config=databases.yaml`, or name a ConfigMap in `existingConfigMap`.\n" }}
{{- end }}
{{- if and $values.rbac.namespaces (not $values.existingConfigMap) }}
{{- fail "\n\n`rbac.namespaces` is for `existingConfigMap`. With `config` the rights follow from the config; remove `rbac.namespaces`.\n" }}
{{- end }}
{{- if $values.existingConfigMap }}
{{- if and $values.rbac.create (not (or $values.rbac.namespaces $values.permittedDatabases)) }}
{{- fail "\n\nThe chart cannot read the ConfigMap of `existingConfigMap`, so it does not know which rights its databases need. Copy its databases into `permittedDatabases` for the least rights, or list their namespaces in `rbac.namespaces`, as in\n\n  rbac:\n    namespaces: [{name: prod}]\n\nor set `rbac.create: false` and apply what `external-endpoints rbac` prints.\n" }}
{{- end }}
{{- if and $values.networkPolicy.enabled $values.networkPolicy.egress.enabled (not (or $values.networkPolicy.egress.extra $values.permittedDatabases)) }}
{{- fail "\n\nThe chart cannot read the ConfigMap of `existingConfigMap`, so its NetworkPolicy would block every check. Copy its databases into `permittedDatabases`, or allow their networks in `networkPolicy.egress.extra`, or set `networkPolicy.egress.enabled: false`.\n" }}
{{- end }}
{{- end }}
{{- if and (not $values.leaderElection.enabled) (gt (int $values.replicaCount) 1) }}
{{- fail "\n\nWithout `leaderElection` two replicas would undo each other's writes. Set `replicaCount: 1`, or `leaderElection.enabled: true`.\n" }}
{{- end }}
{{- if and $values.podMonitor.enabled $values.serviceMonitor.enabled }}
{{- fail "\n\nBoth `podMonitor` and `serviceMonitor` are enabled, so each series would be scraped twice. Disable one of them.\n" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled (not $values.service.enabled) }}
{{- fail "\n\n`serviceMonitor` needs the Service. Set `service.enabled: true`, or enable `podMonitor` in its place.\n" }}
{{- end }}
{{- if $values.statusPage.ingress.enabled }}
{{- if not $values.service.enabled }}
{{- fail "\n\n`statusPage.ingress` needs the Service. Set `service.enabled: true`.\n" }}
{{- end }}
{{- if not $values.statusPage.ingress.hosts }}
{{- fail "\n\n`statusPage.ingress` needs a host name. Write `hosts: [databases.example.com]`.\n" }}
{{- end }}
{{- end }}
{{- if and $values.serviceAccount.create (eq $values.serviceAccount.name "default") }}
{{- fail "\n\nThe ServiceAccount `default` exists in every namespace. Set `serviceAccount.create: false`, or choose another name.\n" }}
{{- end }}
{{- end }}

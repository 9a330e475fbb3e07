{{/*
What follows from the databases: rights by namespace, and egress by port. `external-endpoints rbac`
derives the same rights; src/cli/rbac/rules.rs has their truth table.

A template returns a text, so these return JSON.
*/}}

{{/*
The config as JSON: the mapping in `config`, or the text in it. Empty with `existingConfigMap`.
*/}}
{{- define "external-endpoints.config" -}}
{{- include "external-endpoints.validate" . }}
{{- if kindIs "string" .Values.config }}
{{- $config := fromYaml .Values.config }}
{{- if hasKey $config "Error" }}
{{- printf "\n\n`config` is not YAML: %s\n" $config.Error | fail }}
{{- end }}
{{- toJson $config }}
{{- else }}
{{- default dict .Values.config | toJson }}
{{- end }}
{{- end }}

{{/* Fails for a config that Helm cannot write. */}}
{{- define "external-endpoints.unwritable" -}}
{{- fail "\n\n`config` has a control character or another sign that Helm cannot write. Remove it, or create the ConfigMap by other means and name it in `existingConfigMap`.\n" }}
{{- end }}

{{/*
The config that the cluster holds from the release before, as JSON; empty without a cluster, without
such a ConfigMap, and if it is not YAML.
*/}}
{{- define "external-endpoints.previousConfig" -}}
{{- $config := dict }}
{{- if and .Values.retainPrevious (not .Values.existingConfigMap) }}
{{- $namespace := include "external-endpoints.namespace" . }}
{{- $existing := lookup "v1" "ConfigMap" $namespace (include "external-endpoints.configMapName" .) }}
{{- $text := dig "data" "config.yaml" "" (default dict $existing) }}
{{- $parsed := fromYaml $text }}
{{- if and $parsed (not (hasKey $parsed "Error")) }}
{{- $config = $parsed }}
{{- end }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{/* Whether a mapping has no `port` that a port can be; empty if it has one. */}}
{{- define "external-endpoints.lacksPort" -}}
{{- if not (kindIs "map" .) }}true{{ else if or (lt (int .port) 1) (gt (int .port) 65535) }}true{{ end }}
{{- end }}

{{/*
Whether a layer of the config has the form that the templates below rely on; empty if not. A layer is
`defaults`, a database, or an address.
*/}}
{{- define "external-endpoints.isLayer" -}}
{{- $good := kindIs "map" . }}
{{- if $good }}
{{- $dns := default dict .dns }}
{{- $check := default dict .check }}
{{- $good = and (kindIs "map" $dns) (kindIs "map" $check) }}
{{- if $good }}
{{- $good = and (kindIs "slice" (default list $dns.families)) (kindIs "slice" (default list $dns.within)) }}
{{- end }}
{{- if $good }}
{{- range $dns.within }}
{{- $good = and $good (regexMatch "^[0-9a-fA-F.:]+/[0-9]{1,3}$" (toString .)) }}
{{- end }}
{{- range $kind := $check }}
{{- if and (kindIs "map" $kind) (include "external-endpoints.lacksPort" $kind) (hasKey $kind "port") }}
{{- $good = false }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if $good }}true{{ end }}
{{- end }}

{{/* Whether a database has the form that the templates below rely on; empty if not. */}}
{{- define "external-endpoints.isDatabase" -}}
{{- $good := include "external-endpoints.isLayer" . }}
{{- if $good }}
{{- $lists := and (kindIs "slice" .addresses) (kindIs "slice" (default list .ports)) }}
{{- $texts := and (kindIs "string" .service) (kindIs "string" (default "" .namespace)) }}
{{- $good = and $lists $texts (kindIs "string" (default "" .publish)) }}
{{- end }}
{{- if $good }}
{{- range .addresses }}
{{- if not (or (kindIs "string" .) (and (include "external-endpoints.isLayer" .) (kindIs "string" .address))) }}
{{- $good = false }}
{{- end }}
{{- end }}
{{- range default (list (dict "port" .port)) .ports }}
{{- if include "external-endpoints.lacksPort" . }}
{{- $good = false }}
{{- end }}
{{- end }}
{{- end }}
{{- if $good }}true{{ end }}
{{- end }}

{{/*
The databases of a config as a JSON list of `{defaults, database, prune, previous}`: the config,
further databases, and whether it is the one before. One with mistakes has no databases.
*/}}
{{- define "external-endpoints.databasesOf" -}}
{{- $config := index . 0 }}
{{- $defaults := default dict $config.defaults }}
{{- $databases := default list $config.databases }}
{{- $all := list }}
{{- $good := and (include "external-endpoints.isLayer" $defaults) (kindIs "slice" $databases) }}
{{- if $good }}
{{- range concat $databases (index . 1) }}
{{- if include "external-endpoints.isDatabase" . }}
{{- $all = append $all (dict "defaults" $defaults "database" . "prune" (eq (toString $config.prune) "true")) }}
{{- else }}
{{- $good = false }}
{{- end }}
{{- end }}
{{- end }}
{{- if $good }}{{ toJson $all }}{{ else }}[]{{ end }}
{{- end }}

{{/*
All databases, as a JSON list of `{defaults, database, prune, previous}`. `previous` is true for
those of the config before.
*/}}
{{- define "external-endpoints.databases" -}}
{{- $config := include "external-endpoints.config" . | fromJson }}
{{- $all := list }}
{{- $permitted := default list .Values.permittedDatabases }}
{{- range include "external-endpoints.databasesOf" (list $config $permitted) | fromJsonArray }}
{{- $all = append $all (set . "previous" false) }}
{{- end }}
{{- if and (not $all) (not .Values.existingConfigMap) }}
{{- fail "\n\n`config` is not a config: it needs a list `databases`, each with `service`, `port` or `ports`, and `addresses`. `external-endpoints validate FILE` says what is wrong.\n" }}
{{- end }}
{{- $before := include "external-endpoints.previousConfig" . | fromJson }}
{{- range include "external-endpoints.databasesOf" (list $before list) | fromJsonArray }}
{{- $_ := set . "prune" (or .prune (eq (toString $config.prune) "true")) }}
{{- $all = append $all (set . "previous" true) }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{/* The namespace of a database: the root, and an entry of the list above. */}}
{{- define "external-endpoints.databaseNamespace" -}}
{{- $entry := index . 1 }}
{{- $own := include "external-endpoints.namespace" (index . 0) }}
{{- default (default $own $entry.defaults.namespace) $entry.database.namespace }}
{{- end }}

{{/* The text of an address, which may be a mapping. */}}
{{- define "external-endpoints.address" -}}
{{- if kindIs "map" . }}{{ .address }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The family of an address: `IPv4`, `IPv6`, or `name`. */}}
{{- define "external-endpoints.family" -}}
{{- if contains ":" . }}IPv6{{ else if regexMatch "^([0-9]{1,3}[.]){3}[0-9]{1,3}$" . }}IPv4{{ else }}name{{ end }}
{{- end }}

{{/* A `dns` list of a name as JSON: an entry, the address, and the key. An inner layer wins. */}}
{{- define "external-endpoints.dnsList" -}}
{{- $entry := index . 0 }}
{{- $address := index . 1 }}
{{- $key := index . 2 }}
{{- $found := list }}
{{- $layers := list $entry.defaults $entry.database }}
{{- if kindIs "map" $address }}
{{- $layers = append $layers $address }}
{{- end }}
{{- range $layers }}
{{- $found = default $found (get (default dict .dns) $key) }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/*
The names of the slices of a database as a JSON list. Each holds a hundred addresses of one family,
and a name may stand for a hundred addresses of each of its families.
*/}}
{{- define "external-endpoints.slices" -}}
{{- $entry := . }}
{{- $names := list }}
{{- if ne (default "endpoints" $entry.database.publish) "endpoints" }}
{{- $counts := dict "IPv4" 0 "IPv6" 0 }}
{{- range $entry.database.addresses }}
{{- $family := include "external-endpoints.address" . | include "external-endpoints.family" }}
{{- if eq $family "name" }}
{{- $families := include "external-endpoints.dnsList" (list $entry . "families") | fromJsonArray }}
{{- range default (list "IPv4" "IPv6") $families }}
{{- $_ := set $counts . (add (get $counts .) 100) }}
{{- end }}
{{- else }}
{{- $_ := set $counts $family (add (get $counts $family) 1) }}
{{- end }}
{{- end }}
{{- range $family, $count := $counts }}
{{- range $number := untilStep 1 (add (div (add $count 99) 100) 1 | int) 1 }}
{{- $names = append $names (printf "%s-external-%s-%d" $entry.database.service (lower $family) $number) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/*
The facts about each namespace as JSON: its Services, those that are created, its slices, and those
of its rights that Kubernetes cannot limit to a name.
*/}}
{{- define "external-endpoints.facts" -}}
{{- $root := . }}
{{- $facts := dict }}
{{- $role := include "external-endpoints.fullname" $root }}
{{- range include "external-endpoints.databases" $root | fromJsonArray }}
{{- $namespace := include "external-endpoints.databaseNamespace" (list $root .) }}
{{- $known := hasKey $facts $namespace }}
{{- /* A namespace of the config before may be gone. It is there if the Role is. */}}
{{- if and .previous (not $known) }}
{{- $known = lookup "rbac.authorization.k8s.io/v1" "Role" $namespace $role | not | not }}
{{- end }}
{{- if or $known (not .previous) }}
{{- $of := default (dict "services" list "creating" list "slices" list "prune" false) (get $facts $namespace) }}
{{- $_ := set $of "services" (append $of.services .database.service) }}
{{- if and (hasKey .database "createService") (not (kindIs "invalid" .database.createService)) }}
{{- $_ := set $of "creating" (append $of.creating .database.service) }}
{{- end }}
{{- $_ := set $of "slices" (concat $of.slices (include "external-endpoints.slices" . | fromJsonArray)) }}
{{- $_ := set $of "prune" (or $of.prune .prune) }}
{{- $_ := set $facts $namespace $of }}
{{- end }}
{{- end }}
{{- toJson $facts }}
{{- end }}

{{/*
The rules of each namespace as JSON: a mapping from its name to a list. The Lease and its Events are
in the namespace of the daemon.
*/}}
{{- define "external-endpoints.rules" -}}
{{- $root := . }}
{{- $rules := dict }}
{{- range $namespace, $of := include "external-endpoints.facts" $root | fromJson }}
{{- $_ := set $rules $namespace (include "external-endpoints.namedRules" $of | fromYamlArray) }}
{{- end }}
{{- range .Values.rbac.namespaces }}
{{- $of := concat (default list (get $rules .name)) (include "external-endpoints.unnamedRules" . | fromYamlArray) }}
{{- $_ := set $rules .name ($of | uniq) }}
{{- end }}
{{- $home := include "external-endpoints.namespace" $root }}
{{- if .Values.leaderElection.enabled }}
{{- /* The Lease is created by a PUT, for which a name limits `create` too. */}}
{{- $lease := dict
  "apiGroups" (list "coordination.k8s.io")
  "resources" (list "leases")
  "resourceNames" (list (include "external-endpoints.lease" $root))
  "verbs" (list "get" "create" "update")
}}
{{- $_ := set $rules $home (append (default list (get $rules $home)) $lease) }}
{{- end }}
{{- $events := dict "apiGroups" (list "") "resources" (list "events") "verbs" (list "list" "create" "patch") }}
{{- range $namespace, $of := $rules }}
{{- $_ := set $rules $namespace (append $of $events) }}
{{- end }}
{{- toJson $rules }}
{{- end }}

{{/* The rules for reading, which names cannot limit. */}}
{{- define "external-endpoints.readRules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [endpoints]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{/* The rules of a namespace whose databases are known: its facts. */}}
{{- define "external-endpoints.namedRules" -}}
{{ include "external-endpoints.readRules" . }}
- apiGroups: [""]
  resources: [endpoints]
  resourceNames: {{ .services | uniq | sortAlpha | toJson }}
  verbs: {{ if .prune }}[get, create, patch, delete]{{ else }}[get, create, patch]{{ end }}
{{- if .slices }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  resourceNames: {{ .slices | uniq | sortAlpha | toJson }}
  verbs: [get, create, patch, delete]
{{- end }}
{{- if .creating }}
- apiGroups: [""]
  resources: [services]
  verbs: [create]
{{- if .prune }}
- apiGroups: [""]
  resources: [services]
  resourceNames: {{ .creating | uniq | sortAlpha | toJson }}
  verbs: [delete]
{{- end }}
{{- end }}
{{- end }}

{{/* The rules of a namespace whose databases are not known: an item of `rbac.namespaces`. */}}
{{- define "external-endpoints.unnamedRules" -}}
{{ include "external-endpoints.readRules" . }}
- apiGroups: [""]
  resources: [endpoints]
  verbs: {{ if .prune }}[get, create, patch, delete]{{ else }}[get, create, patch]{{ end }}
{{- if .slices }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, create, patch, delete]
{{- end }}
{{- if .createService }}
- apiGroups: [""]
  resources: [services]
  verbs: {{ if .prune }}[create, delete]{{ else }}[create]{{ end }}
{{- end }}
{{- end }}

{{/* The mapping under a key of a check, or an empty one: a check that may be absent, and the key. */}}
{{- define "external-endpoints.checkOfKind" -}}
{{- $check := default dict (index . 0) }}
{{- $kind := get $check (index . 1) }}
{{- if kindIs "map" $kind }}{{ toJson $kind }}{{ else }}{}{{ end }}
{{- end }}

{{/* The kind of a check, which is its only key with a mapping; empty if it has none. */}}
{{- define "external-endpoints.kind" -}}
{{- range $key, $value := default dict . }}
{{- if kindIs "map" $value }}{{ $key }}{{ end }}
{{- end }}
{{- end }}

{{/*
The ports that a check of an address connects to, as a JSON list of `PROTOCOL/NUMBER`: an entry, and
the address. A program of `exec` may connect to any port of the database.
*/}}
{{- define "external-endpoints.checkPorts" -}}
{{- $entry := index . 0 }}
{{- $address := index . 1 }}
{{- $database := $entry.database }}
{{- $all := list }}
{{- range default (list (dict "port" $database.port)) $database.ports }}
{{- $all = append $all (printf "%s/%d" (default "TCP" .protocol) (int .port)) }}
{{- end }}
{{- $layers := list (default dict $entry.defaults.check) (default dict $database.check) }}
{{- if kindIs "map" $address }}
{{- $layers = append $layers (default dict $address.check) }}
{{- end }}
{{- $kind := default (include "external-endpoints.kind" (index $layers 0)) (include "external-endpoints.kind" (index $layers 1)) }}
{{- if eq $kind "exec" }}
{{- toJson $all }}
{{- else }}
{{- $port := first $all }}
{{- range $layers }}
{{- $own := include "external-endpoints.checkOfKind" (list . $kind) | fromJson }}
{{- if $own.port }}
{{- $port = printf "TCP/%d" (int $own.port) }}
{{- end }}
{{- end }}
{{- list $port | toJson }}
{{- end }}
{{- end }}

{{/*
A network whose address has no bits beyond its prefix: Kubernetes rejects others since 1.36. The
groups of an IPv4 address have 8 bits, and those of an IPv6 address 16.
*/}}
{{- define "external-endpoints.network" -}}
{{- $parts := splitList "/" . }}
{{- $address := first $parts }}
{{- $rest := last $parts | int }}
{{- $powers := list 1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536 }}
{{- $groups := list }}
{{- $bits := 8 }}
{{- if contains ":" $address }}
{{- $bits = 16 }}
{{- /* The last two groups may be written as an IPv4 address, as in 64:ff9b::192.0.2.1. */}}
{{- $end := splitList ":" $address | last }}
{{- if contains "." $end }}
{{- $bytes := splitList "." $end }}
{{- $high := add (mul 256 (index $bytes 0 | int)) (index $bytes 1 | int) }}
{{- $low := add (mul 256 (index $bytes 2 | int)) (index $bytes 3 | int) }}
{{- $address = printf "%s%x:%x" (trimSuffix $end $address) $high $low }}
{{- end }}
{{- $halves := splitList "::" $address }}
{{- $left := without (splitList ":" (first $halves)) "" }}
{{- $right := list }}
{{- if gt (len $halves) 1 }}
{{- $right = without (splitList ":" (last $halves)) "" }}
{{- end }}
{{- range sub 8 (add (len $left) (len $right)) | int | until }}
{{- $right = prepend $right "0" }}
{{- end }}
{{- range concat $left $right }}
{{- $groups = append $groups (printf "0x%v" . | int) }}
{{- end }}
{{- else }}
{{- range splitList "." $address }}
{{- $groups = append $groups (int .) }}
{{- end }}
{{- end }}
{{- $masked := list }}
{{- $used := 0 }}
{{- range $index, $group := $groups }}
{{- $free := sub $bits (min $bits (max 0 $rest)) | int }}
{{- $group = sub $group (mod $group (index $powers $free)) | int }}
{{- if $group }}
{{- $used = add1 $index | int }}
{{- end }}
{{- $masked = append $masked (printf (ternary "%x" "%d" (eq $bits 16)) $group) }}
{{- $rest = sub $rest $bits | int }}
{{- end }}
{{- if eq $bits 8 }}
{{- join "." $masked }}
{{- else if lt $used 7 }}
{{- slice $masked 0 $used | join ":" }}::
{{- else }}
{{- join ":" $masked }}
{{- end }}/{{ last $parts }}
{{- end }}

{{/*
The egress that the checks need, as JSON: `ports` maps `PROTOCOL/NUMBER` to a mapping whose keys are
networks, and `names` is true if DNS is needed.
*/}}
{{- define "external-endpoints.egress" -}}
{{- $root := . }}
{{- $ports := dict }}
{{- /* A config that the chart cannot read may have names. */}}
{{- $names := not (empty $root.Values.existingConfigMap) }}
{{- range $entry := include "external-endpoints.databases" $root | fromJsonArray }}
{{- range $address := $entry.database.addresses }}
{{- $text := include "external-endpoints.address" $address }}
{{- $family := include "external-endpoints.family" $text }}
{{- $networks := list (printf "%s/%s" $text (ternary "128" "32" (eq $family "IPv6"))) }}
{{- if eq $family "name" }}
{{- $names = true }}
{{- $networks = include "external-endpoints.dnsList" (list $entry $address "within") | fromJsonArray }}
{{- $networks = default (default (list "0.0.0.0/0" "::/0") $root.Values.allowCidrs) $networks }}
{{- end }}
{{- range $port := include "external-endpoints.checkPorts" (list $entry $address) | fromJsonArray }}
{{- $of := default dict (get $ports $port) }}
{{- range $networks }}
{{- $_ := set $of (include "external-endpoints.network" .) true }}
{{- end }}
{{- $_ := set $ports $port $of }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "ports" $ports "names" $names | toJson }}
{{- end }}

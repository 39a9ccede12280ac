{{/* Alert rules and dashboard of this release, made from the files that are for all releases. */}}

{{/* The alerts see only this release's replicas, and say to which release they belong. */}}
{{- define "rtv.alertRules" -}}
{{- $rules := .Files.Get "files/alerts.yaml" | required "files/alerts.yaml is missing from this chart: take a complete package" | fromYaml -}}
{{- $series := include "rtv.series" . -}}
{{- $release := dict "namespace" .Release.Namespace "release" .Release.Name -}}
{{- $docs := trimSuffix "/" .Values.monitoring.prometheusRule.runbookBase -}}
{{- if and .Values.coturn.enabled .Values.coturn.metricsPort -}}
{{- $_ := set $rules "groups" (append $rules.groups (include "rtv.turnAlerts" . | fromYaml)) -}}
{{- end -}}
{{- range $group := $rules.groups -}}
{{- $_ := set $group "name" (replace $.Chart.Name (printf "%s.%s" $.Release.Namespace (include "rtv.fullname" $)) $group.name) -}}
{{- range $rule := $group.rules -}}
{{- $_ := set $rule "expr" (replace "job!=\"\"" $series $rule.expr) -}}
{{- $_ := set $rule "labels" (merge (dict) $release $rule.labels) -}}
{{- $_ := set $rule.annotations "summary" (printf "%s/%s: %s" $.Release.Namespace $.Release.Name $rule.annotations.summary) -}}
{{- if $docs -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s" $docs $rule.annotations.runbook_url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{/* Alerts about coturn. Its own series exist only after it was used, so they ask whether it can be scraped. */}}
{{- define "rtv.turnAlerts" -}}
{{- $pods := printf "namespace=\"%s\",pod=~\"%s-coturn-[a-z0-9]+-?[a-z0-9]{5}\"" .Release.Namespace (include "rtv.fullname" .) -}}
name: {{ .Chart.Name }}.turn
rules:
  - alert: VisionTurnDown
    expr: sum by (namespace) (up{{ "{" }}{{ $pods }}}) == 0 or absent(up{{ "{" }}{{ $pods }}})
    for: 2m
    labels:
      severity: critical
    annotations:
      summary: No TURN server can be scraped
      description: No server of coturn answers Prometheus, so clients that need a relay probably cannot connect over WebRTC.
      runbook_url: docs/operations/turn.md#visionturndown
{{- end -}}

{{/* The dashboard opens with this release selected; its uid and title are unique in a Grafana that has several. */}}
{{- define "rtv.dashboard" -}}
{{- $dashboard := .Files.Get "files/dashboard.json" | required "files/dashboard.json is missing from this chart: take a complete package" | fromJson -}}
{{- $fullname := include "rtv.fullname" . -}}
{{- $own := printf "%s/%s" .Release.Namespace $fullname -}}
{{/* Grafana allows 40 characters. */}}
{{- $_ := set $dashboard "uid" (printf "%s-%s" (trunc 27 $fullname | trimSuffix "-") (sha256sum $own | trunc 12)) -}}
{{- $_ := set $dashboard "title" (printf "%s: %s" $dashboard.title $own) -}}
{{- $selected := dict "namespace" .Release.Namespace -}}
{{- if .Values.monitoring.serviceMonitor.enabled -}}
{{/* The Prometheus Operator names the job after the Service. */}}
{{- $_ := set $selected "job" $fullname -}}
{{- end -}}
{{- range $variable := $dashboard.templating.list -}}
{{- with get $selected $variable.name -}}
{{- $_ := set $variable "current" (dict "selected" true "text" (list .) "value" (list .)) -}}
{{- end -}}
{{- end -}}
{{- toPrettyJson $dashboard -}}
{{- end -}}

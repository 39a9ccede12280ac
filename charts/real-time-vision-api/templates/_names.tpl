{{/* Names, labels and selectors. */}}

{{- define "rtv.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters, so that names of a StatefulSet's pods, and names with a suffix, are still DNS labels. */}}
{{- define "rtv.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "rtv.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rtv.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rtv.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rtv.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: service
{{- end -}}

{{- define "rtv.testLabels" -}}
app.kubernetes.io/name: {{ include "rtv.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{- define "rtv.coturnSelectorLabels" -}}
app.kubernetes.io/name: {{ include "rtv.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: coturn
{{- end -}}

{{- define "rtv.metricsLabels" -}}
app.kubernetes.io/name: {{ include "rtv.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: metrics
{{- end -}}

{{/* Whether the port of the metrics has a Service of its own, because that of the service is reached from outside. */}}
{{- define "rtv.metricsApart" -}}
{{- if and .Values.monitoring.metricsPort (ne .Values.service.type "ClusterIP") -}}
true
{{- end -}}
{{- end -}}

{{/* Labels of all resources, but not for selectors of pods; the component is added if there is one. */}}
{{- define "rtv.commonLabels" -}}
{{ include "rtv.chartLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Annotations of a resource: its own, in the second argument, and common ones. */}}
{{- define "rtv.annotations" -}}
{{- with merge (dict) (last .) (first .).Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "rtv.chartLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "rtv.labels" -}}
{{ include "rtv.selectorLabels" . }}
{{ include "rtv.commonLabels" . }}
{{- end -}}

{{- define "rtv.coturnLabels" -}}
{{ include "rtv.coturnSelectorLabels" . }}
{{ include "rtv.commonLabels" . }}
{{- end -}}

{{- define "rtv.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rtv.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A reference of an image with `global.imageRegistry` in place of its registry; arguments: the root, the reference. */}}
{{- define "rtv.fromRegistry" -}}
{{- $registry := (first .).Values.global.imageRegistry -}}
{{- $parts := splitList "/" (last .) -}}
{{- if $registry -}}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) -}}{{- $parts = rest $parts -}}{{- end -}}
{{- $parts = prepend $parts (trimSuffix "/" $registry) -}}
{{- end -}}
{{- join "/" $parts -}}
{{- end -}}

{{/* Which image of the release does what the values ask for; the last part of its tag. */}}
{{- define "rtv.imageName" -}}
{{- if .Values.gpu.enabled -}}
{{- ternary "gpu-cuda12" "gpu" (eq (int .Values.gpu.cuda) 12) -}}
{{- else -}}
{{- ternary "cpu-drift" "cpu" (eq (get .Values.settings "DRIFT_ENGINE") "evidently") -}}
{{- end -}}
{{- end -}}

{{/* Image of the service. The published chart lists the images of its release with their digests in an annotation; a name
     that is in this list gets its digest. */}}
{{- define "rtv.image" -}}
{{- $image := .Values.image -}}
{{- $reference := printf "%s@%s" $image.repository $image.digest -}}
{{- if not $image.digest -}}
{{- $tag := default (printf "%s-%s" .Chart.AppVersion (include "rtv.imageName" .)) $image.tag -}}
{{- $reference = printf "%s:%s" $image.repository $tag -}}
{{- range fromYamlArray (index .Chart.Annotations "artifacthub.io/images") -}}
{{- if hasPrefix (printf "%s@" $reference) .image -}}
{{- $reference = .image -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "rtv.fromRegistry" (list . $reference) -}}
{{- end -}}

{{/* Kind of the workload: a StatefulSet if each replica has its own spool. */}}
{{- define "rtv.workloadKind" -}}
{{- ternary "StatefulSet" "Deployment" .Values.persistence.spool.enabled -}}
{{- end -}}

{{/* More than one replica, now or after scaling. */}}
{{- define "rtv.several" -}}
{{- if or (and .Values.autoscaling.enabled (gt (int .Values.autoscaling.maxReplicas) 1)) (and (not .Values.autoscaling.enabled) (gt (int .Values.replicaCount) 1)) -}}
true
{{- end -}}
{{- end -}}

{{/* Number of replicas to apply. While an autoscaler decides, it is the number that there is now: if an upgrade removed the field
     that the release before had set, Kubernetes would fall back to one replica. Without a cluster (`helm template`) there is
     nothing to look up, and the field is left out. A workload of the other kind is the one that this upgrade replaces. */}}
{{- define "rtv.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{- .Values.replicaCount -}}
{{- else -}}
{{- $kind := include "rtv.workloadKind" . -}}
{{- $found := dict -}}
{{- range $each := list (ternary "Deployment" "StatefulSet" (eq $kind "StatefulSet")) $kind -}}
{{- $found = lookup "apps/v1" $each $.Release.Namespace (include "rtv.fullname" $) | default $found -}}
{{- end -}}
{{- if hasKey ($found.spec | default dict) "replicas" -}}
{{- int $found.spec.replicas -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The autoscaling metrics as PromQL. The argument is a list that begins with the series selector: KEDA queries the release as
     a whole, prometheus-adapter each pod, for which the list also has the labels that name a pod. */}}

{{/* Series of this release's replicas, independent of the scrape job. Names that Kubernetes gives to pods of a Deployment
     end in a hash and five characters (long names lose the dash), so `NAME-two-0` of another release is not among them. */}}
{{- define "rtv.series" -}}
{{- $pods := ternary "[0-9]+" "[a-z0-9]+-?[a-z0-9]{5}" .Values.persistence.spool.enabled -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "rtv.fullname" . }}-{{ $pods }}"
{{- end -}}

{{- define "rtv.query.streams" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}
sum by ({{ $by }}) (object_detection_streams{{ "{" }}{{ $s }}})
{{- end -}}

{{/* Open streams of the whole release. A replica that Prometheus knows but cannot scrape counts with its last number for 15
     minutes, so that a broken scrape does not look like streams that have ended. `up` ends with the pod. */}}
{{- define "rtv.query.releaseStreams" -}}
{{- $s := index . 0 -}}
sum(sum by (pod) (object_detection_streams{{ "{" }}{{ $s }}}) or sum by (pod) (max by (pod, transport, version) (last_over_time(object_detection_streams{{ "{" }}{{ $s }}}[15m]))) and on (pod) up{{ "{" }}{{ $s }}})
{{- end -}}

{{/* Load of each pod: demand and refused demand over capacity, summed over model versions; 1 is a full replica. The arguments
     are the series selector, the labels that name a pod, and a range over which the last value counts, empty for now only.
     `max` counts a pod once if several jobs scrape it. A version whose capacity is not known yet has no load. */}}
{{- define "rtv.query.podLoad" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}{{- $range := index . 2 -}}
{{- $series := dict -}}
{{- range $name := list "demand" "refused" "capacity" -}}
{{- $one := printf "object_detection_%s_frames_per_second{%s}" $name $s -}}
{{- $_ := set $series $name (ternary (printf "last_over_time(%s[%s])" $one $range) $one (ne $range "")) -}}
{{- end -}}
sum by ({{ $by }}) (sum by ({{ $by }}, version) (max by ({{ $by }}, version, class) ({{ $series.demand }}) + max by ({{ $by }}, version, class) ({{ $series.refused }})) / (max by ({{ $by }}, version) ({{ $series.capacity }}) > 0))
{{- end -}}

{{/* Load of one pod in percent, for prometheus-adapter. */}}
{{- define "rtv.query.loadPercent" -}}
100 * {{ include "rtv.query.podLoad" (list (index . 0) (index . 1) "") }}
{{- end -}}

{{/* Load of all replicas of the release together, in percent of one replica, for KEDA. As with `releaseStreams`, a replica that
     cannot be scraped counts with its last value for 15 minutes. */}}
{{- define "rtv.query.releaseLoadPercent" -}}
{{- $s := index . 0 -}}
100 * sum({{ include "rtv.query.podLoad" (list $s "pod" "") }} or {{ include "rtv.query.podLoad" (list $s "pod" "15m") }} and on (pod) up{{ "{" }}{{ $s }}})
{{- end -}}

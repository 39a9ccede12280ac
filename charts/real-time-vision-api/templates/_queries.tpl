{{/* The autoscaling metrics as PromQL. The argument is a list (series selector, grouping clause): KEDA queries the release
     as a whole, prometheus-adapter each pod. */}}

{{/* Series of this release's replicas, independent of the scrape job. Names that Kubernetes gives to pods of a Deployment
     end in a hash and five characters (long names lose the dash), so `NAME-two-0` of another release is not among them. */}}
{{- define "rtv.series" -}}
{{- $pods := ternary "[0-9]+" "[a-z0-9]+-?[a-z0-9]{5}" .Values.persistence.spool.enabled -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "rtv.fullname" . }}-{{ $pods }}"
{{- end -}}

{{- define "rtv.query.streams" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}
sum(object_detection_streams{{ "{" }}{{ $s }}}){{ $by }}
{{- end -}}

{{/* Open streams of the whole release. A replica that Prometheus knows but cannot scrape counts with its last number for 15
     minutes, so that a broken scrape does not look like streams that have ended. `up` ends with the pod. */}}
{{- define "rtv.query.releaseStreams" -}}
{{- $s := index . 0 -}}
sum(sum by (pod) (object_detection_streams{{ "{" }}{{ $s }}}) or sum by (pod) (max by (pod, transport, version) (last_over_time(object_detection_streams{{ "{" }}{{ $s }}}[15m]))) and on (pod) up{{ "{" }}{{ $s }}})
{{- end -}}

{{/* Demand for streams in percent of the open ones, while streams are refused for lack of capacity: 120 to 200, otherwise 0.
     A refused client is told to come back after 5 seconds, so 5 times the rate of refusals is the number that waits. Two
     refusals in two minutes are no reason to scale. */}}
{{- define "rtv.query.demandPercent" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}
{{- $open := printf "sum(object_detection_streams{%s})%s" $s $by -}}
{{- $waiting := printf "5 * sum(rate(object_detection_refused_total{%s,class=\"live\",reason=\"saturated\"}[2m]))%s" $s $by -}}
100 * clamp(1 + {{ $waiting }} / clamp_min({{ $open }}, 1), 1.2, 2) and {{ $waiting }} > 0.1 or 0 * {{ $open }}
{{- end -}}

{{/* Share of the received frames that were dropped for lack of capacity, without those dropped because of a client's rate
     or a damaged image. The divisor is at least one frame per second, so that an idle replica has the value zero. */}}
{{- define "rtv.query.droppedPercent" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}
100 * sum(rate(object_detection_frames_dropped_total{{ "{" }}{{ $s }},reason=~"superseded|stale|overload"}[2m])){{ $by }} / clamp_min(sum(rate(object_detection_frames_received_total{{ "{" }}{{ $s }}}[2m])){{ $by }}, 1)
{{- end -}}

{{/* Mean time that a frame waited, in its stream's mailbox and in the queue, for each frame that ran. */}}
{{- define "rtv.query.queueAgeMs" -}}
{{- $s := index . 0 -}}{{- $by := index . 1 -}}
1000 * sum(rate(object_detection_stage_duration_seconds_sum{{ "{" }}{{ $s }},stage=~"mailbox|queue"}[2m])){{ $by }} / clamp_min(sum(rate(object_detection_stage_duration_seconds_count{{ "{" }}{{ $s }},stage="queue"}[2m])){{ $by }}, 1)
{{- end -}}

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

{{/* Annotations for the ingress controllers: affinity by cookie, no time limit that would cut a stream, the service's
     limit for bodies, no buffering. */}}

{{/* Longest silence of a stream. The service pings WebSockets every 20 s and sends comments on event streams every 15 s. */}}
{{- define "rtv.silenceS" -}}75{{- end -}}

{{- define "rtv.bodyMaxMiB" -}}
{{- divf (.Values.settings.REQUEST_MAX_BYTES | default 33554432 | float64) 1048576 | ceil | int -}}
{{- end -}}

{{- define "rtv.ingressAnnotations.nginx" -}}
{{- $p := "nginx.ingress.kubernetes.io" -}}
{{ $p }}/affinity: cookie
# A client stays at its replica also while replicas are added.
{{ $p }}/affinity-mode: persistent
{{ $p }}/session-cookie-name: {{ .Values.sessionAffinity.cookieName }}
{{ $p }}/session-cookie-path: {{ .Values.pathPrefix | default "/" }}
{{ $p }}/session-cookie-samesite: Lax
# The cookie of a replica that is gone is replaced.
{{ $p }}/session-cookie-change-on-failure: "true"
{{ $p }}/proxy-read-timeout: {{ include "rtv.silenceS" . | quote }}
{{ $p }}/proxy-send-timeout: {{ include "rtv.silenceS" . | quote }}
{{ $p }}/proxy-connect-timeout: "1"
{{ $p }}/proxy-body-size: {{ include "rtv.bodyMaxMiB" . }}m
{{ $p }}/proxy-buffering: "off"
# Detecting twice does no harm, so a POST whose replica died is sent to the next one. It is not repeated after a 503,
# because that would increase the load of a saturated release.
{{ $p }}/proxy-next-upstream: error timeout non_idempotent
{{ $p }}/proxy-next-upstream-tries: "2"
{{- end -}}

{{- define "rtv.ingressAnnotations.haproxy" -}}
{{- $p := "haproxy.org" -}}
{{ $p }}/cookie-persistence: {{ .Values.sessionAffinity.cookieName }}
{{ $p }}/load-balance: leastconn
{{ $p }}/check: "true"
{{ $p }}/check-http: /health
{{ $p }}/check-interval: 1s
{{ $p }}/timeout-tunnel: 1h
{{ $p }}/timeout-server: {{ include "rtv.silenceS" . }}s
{{- end -}}

{{- define "rtv.ingressAnnotations.haproxy-ingress" -}}
{{- $p := "haproxy-ingress.github.io" -}}
{{ $p }}/affinity: cookie
{{ $p }}/session-cookie-name: {{ .Values.sessionAffinity.cookieName }}
{{ $p }}/session-cookie-strategy: insert
{{ $p }}/session-cookie-same-site: "true"
{{ $p }}/balance-algorithm: leastconn
{{ $p }}/health-check-uri: /health
{{ $p }}/health-check-interval: 1s
{{ $p }}/timeout-tunnel: 1h
{{ $p }}/timeout-server: {{ include "rtv.silenceS" . }}s
{{ $p }}/proxy-body-size: {{ include "rtv.bodyMaxMiB" . }}m
{{- end -}}

{{- define "rtv.ingressAnnotations.none" -}}
{}
{{- end -}}

{{/* Paths that are exposed outside the cluster: all routes except probes, metrics, the operator's routes of a single
     replica (/drift/report, /reference/update, /versions/…), and /tickets/…, which replicas request from each other. A test compares
     this list with the service's routes. With `pathPrefix` all of them are below it; the service redirects from the prefix
     itself to the page. */}}
{{- define "rtv.publicPaths" -}}
{{- $prefix := .Values.pathPrefix -}}
exact:
  {{- with $prefix }}
  - {{ . }}
  {{- end }}
  - {{ $prefix }}/
  - {{ $prefix }}/predict
  - {{ $prefix }}/stream
  - {{ $prefix }}/webrtc
  - {{ $prefix }}/whip
  - {{ $prefix }}/tickets
  - {{ $prefix }}/health
  - {{ $prefix }}/versions
  - {{ $prefix }}/drift/status
  - {{ $prefix }}/openapi.json
  - {{ $prefix }}/docs-init.js
  - {{ $prefix }}/redoc
  - {{ $prefix }}/favicon.ico
prefix:
  - {{ $prefix }}/v1
  - {{ $prefix }}/v2
  - {{ $prefix }}/docs
  - {{ $prefix }}/static
  - {{ $prefix }}/data
{{- end -}}

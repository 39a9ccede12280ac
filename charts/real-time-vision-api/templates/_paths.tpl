{{/* Paths that are exposed outside the cluster: all routes except probes, metrics, the operator's routes of a single
     replica (/drift/report, /reference/update), and /tickets/…, which replicas request from each other. A test compares
     this list with the service's routes. */}}
{{- define "rtv.publicPaths" -}}
exact:
  - /
  - /predict
  - /stream
  - /tickets
  - /health
  - /drift/status
  - /openapi.json
  - /docs-init.js
  - /redoc
  - /favicon.ico
prefix:
  - /v1
  - /v2
  - /docs
  - /static
  - /data
{{- end -}}

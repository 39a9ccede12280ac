{{/* What the outside may ask for: everything that the service answers, but /metrics and /livez. A test compares this
     with the service's routes. */}}
{{- define "rtv.publicPaths" -}}
exact:
  - /
  - /predict
  - /stream
  - /health
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

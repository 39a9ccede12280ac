{{/* What the outside may ask for: everything that the service answers, but probes, metrics, and what is about one replica
     and for who runs it: /drift/report and /reference/update; nor /tickets/…, which replicas ask each other. A test compares this with the service's routes. */}}
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

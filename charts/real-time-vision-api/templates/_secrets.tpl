{{/* The Secrets in use: existing ones if they are named, else the chart's own. */}}

{{- define "rtv.apiKeysSecret" -}}
{{- if .Values.auth.existingSecret -}}
{{- .Values.auth.existingSecret -}}
{{- else if .Values.auth.apiKeys -}}
{{- include "rtv.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "rtv.adminKeysSecret" -}}
{{- if .Values.auth.adminExistingSecret -}}
{{- .Values.auth.adminExistingSecret -}}
{{- else if .Values.auth.adminKeys -}}
{{- include "rtv.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* Whether clients must send a key or a token. */}}
{{- define "rtv.wantsKeys" -}}
{{- if or .Values.auth.keysFileSecret .Values.settings.JWT_JWKS (include "rtv.apiKeysSecret" .) -}}
true
{{- end -}}
{{- end -}}

{{- define "rtv.awsSecret" -}}
{{- if .Values.awsCredentials.existingSecret -}}
{{- .Values.awsCredentials.existingSecret -}}
{{- else if .Values.awsCredentials.accessKeyId -}}
{{- include "rtv.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "rtv.turnSecret" -}}
{{- if .Values.webrtc.turn.existingSecret -}}
{{- .Values.webrtc.turn.existingSecret -}}
{{- else if .Values.webrtc.turn.secret -}}
{{- include "rtv.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* The chart's own Secret uses the default keys; values name the keys of existing Secrets. */}}
{{- define "rtv.apiKeysKey" -}}
{{- ternary .Values.auth.existingSecretKey "api-keys" (not (empty .Values.auth.existingSecret)) -}}
{{- end -}}

{{- define "rtv.adminKeysKey" -}}
{{- ternary .Values.auth.adminExistingSecretKey "admin-api-keys" (not (empty .Values.auth.adminExistingSecret)) -}}
{{- end -}}

{{- define "rtv.turnKey" -}}
{{- ternary .Values.webrtc.turn.existingSecretKey "turn-secret" (not (empty .Values.webrtc.turn.existingSecret)) -}}
{{- end -}}

{{/* Names and versions of the existing Secrets among the names in the second argument, as they are in the cluster now. A version
     changes with the content and tells nothing about it. Without a cluster (`helm template`) there are none. */}}
{{- define "rtv.secretVersions" -}}
{{- $root := first . -}}
{{- range last . | compact | uniq -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace . -}}
{{- if $found -}}
{{- printf "%s %s\n" . $found.metadata.resourceVersion -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Checks of the networks and namespaces to which the network policy lets pods connect. _checks.tpl includes them. */}}

{{/* An empty list would not close a rule: Kubernetes takes a rule without peers for one that allows every address. */}}
{{- define "rtv.checkNetworks" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if $policy.enabled -}}
{{- $servers := list -}}
{{- if eq (include "rtv.usesS3" .) "true" -}}
{{- $servers = append $servers (list "s3CIDRs" "samples go to a bucket" (.Values.s3.endpointUrl | default "https://s3.amazonaws.com")) -}}
{{- end -}}
{{- range $version, $entry := .Values.models.fetch -}}
{{- $url := urlParse $entry.uri -}}
{{- if eq $url.scheme "s3" -}}
{{- $endpoint := $entry.endpointUrl | default $.Values.s3.endpointUrl | default "https://s3.amazonaws.com" -}}
{{- $servers = append $servers (list "s3CIDRs" (printf "models.fetch.%s is in a bucket" $version) $endpoint) -}}
{{- else -}}
{{- $servers = append $servers (list "modelCIDRs" (printf "models.fetch.%s.uri names a server" $version) $entry.uri) -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "http" (.Values.settings.JWT_JWKS | default "") -}}
{{- $servers = append $servers (list "jwksCIDRs" "settings.JWT_JWKS names a server" .Values.settings.JWT_JWKS) -}}
{{- end -}}
{{- if .Values.settings.IMAGE_URL_HOSTS -}}
{{- $servers = append $servers (list "imageUrlCIDRs" "settings.IMAGE_URL_HOSTS names servers" "https://outside") -}}
{{- end -}}
{{- if and .Values.webrtc.enabled .Values.webrtc.iceServers -}}
{{- $servers = append $servers (list "turnCIDRs" "webrtc.iceServers names servers" "https://outside") -}}
{{- end -}}
{{- range $servers -}}
{{- if not (or (index $policy (first .)) (include "rtv.namespaceOf" (last .))) -}}
{{- fail (printf "networkPolicy.%s is empty, and %s outside the cluster, which pods could not reach: name its networks, such as [10.0.0.0/8]" (first .) (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Volumes that are folders of the pod count against its limit of ephemeral storage, beyond which Kubernetes evicts it. */}}
{{- define "rtv.checkEphemeral" -}}
{{- $v := .Values -}}
{{- $limit := dig "limits" "ephemeral-storage" "" $v.resources | toString -}}
{{- $volumes := list (list "tmpSize" $v.tmpSize) -}}
{{- if not $v.persistence.spool.enabled -}}
{{- $volumes = append $volumes (list "persistence.spool.size" $v.persistence.spool.size) -}}
{{- end -}}
{{- if and $v.models.fetch (not $v.persistence.models.enabled) -}}
{{- $volumes = append $volumes (list "persistence.models.size" $v.persistence.models.size) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- $names := list -}}
{{- range $volumes -}}
{{- $sum = add $sum (include "rtv.bytes" (last .) | int64) -}}
{{- $names = append $names (printf "%s (%v)" (first .) (last .)) -}}
{{- end -}}
{{- if and $limit (gt $sum (include "rtv.bytes" $limit | int64)) -}}
{{- fail (printf "resources.limits.ephemeral-storage is %s, and %s may take %d bytes of it, after which Kubernetes evicts the pod: raise the limit, or set smaller sizes" $limit (join " and " $names) $sum) -}}
{{- end -}}
{{- end -}}

{{/* Checks of models, of their volumes and of volumes that are too small. _checks.tpl includes them. */}}

{{- define "rtv.checkModels" -}}
{{- $v := .Values -}}
{{- range $version := list "v1" "v2" -}}
{{- $file := index $v.models $version -}}
{{- $entry := index $v.models.fetch $version -}}
{{- if and $file $entry -}}
{{- fail (printf "models.%s is %s and models.fetch.%s is %s: set one of them, because a version has one file" $version $file $version $entry.uri) -}}
{{- end -}}
{{- if and $file (not (hasPrefix "/" $file)) (not $v.persistence.models.enabled) -}}
{{- fail (printf "models.%s is %s, relative to persistence.models.mountPath, and persistence.models.enabled is false: enable it, or give an absolute path in the image" $version $file) -}}
{{- end -}}
{{- if $entry -}}
{{- include "rtv.checkFetch" (list (printf "models.fetch.%s" $version) $entry) -}}
{{- end -}}
{{- end -}}
{{- if and $v.models.fetch $v.persistence.models.enabled (not $v.persistence.models.existingClaim) -}}
{{- if not (or (has "ReadWriteMany" $v.persistence.models.accessModes) (has "ReadWriteOnce" $v.persistence.models.accessModes) (has "ReadWriteOncePod" $v.persistence.models.accessModes)) -}}
{{- fail (printf "persistence.models.accessModes is %s, and models.fetch writes to the volume: allowed is ReadWriteMany, or ReadWriteOnce for one replica" (join ", " $v.persistence.models.accessModes)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.persistence.engines.enabled (not (and $v.gpu.enabled (eq $v.gpu.device "tensorrt"))) -}}
{{- fail (printf "persistence.engines.enabled is true, and gpu.enabled=%v with gpu.device=%s builds no engines: set gpu.enabled=true and gpu.device=tensorrt, or remove it" $v.gpu.enabled $v.gpu.device) -}}
{{- end -}}
{{- if and $v.warmSpares.count $v.priorityClassName (eq $v.warmSpares.priorityClassName $v.priorityClassName) -}}
{{- fail (printf "warmSpares.priorityClassName and priorityClassName are both %s, so a replica could not take the place of a placeholder: name a class of lower priority, or leave warmSpares.priorityClassName empty" $v.priorityClassName) -}}
{{- end -}}
{{- range $each := concat $v.initContainers $v.extraContainers -}}
{{- if and $v.models.fetch (has $each.name (list "fetch-v1" "fetch-v2")) -}}
{{- fail (printf "initContainers or extraContainers has %s, the name of a container of models.fetch: allowed is any other" $each.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Arguments: name of the value, the entry. */}}
{{- define "rtv.checkFetch" -}}
{{- $name := first . -}}
{{- $entry := last . -}}
{{- $scheme := (urlParse $entry.uri).scheme -}}
{{- $name_of := include "rtv.fetchName" $entry -}}
{{- if not (regexMatch "^[a-z0-9][a-z0-9._-]{0,63}$" $name_of) -}}
{{- fail (printf "%s.uri is %s, whose last part gives no name for the model (%q): set %s.name, of small letters, digits, dots, dashes and underscores" $name $entry.uri $name_of $name) -}}
{{- end -}}
{{- if eq $scheme "oci" -}}
{{- if not (regexMatch "^oci://[^/]+/[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$" $entry.uri) -}}
{{- fail (printf "%s.uri is %s: expected oci://REGISTRY/REPOSITORY:TAG or …@sha256:DIGEST, with a repository of small letters and a digest of 64 digits" $name $entry.uri) -}}
{{- end -}}
{{- if not (or $entry.sha256 (regexMatch "@sha256:[0-9a-f]{64}$" $entry.uri)) -}}
{{- fail (printf "%s.uri is %s, without a digest, and %s.sha256 is empty: a tag may name another file when the next pod starts, so give …@sha256:DIGEST (`streamer models pull %s` tells the present one) or sha256" $name $entry.uri $name $entry.uri) -}}
{{- end -}}
{{- if and $entry.plainHttp $entry.existingSecret -}}
{{- fail (printf "%s.plainHttp is true and %s.existingSecret is %s: credentials are not sent over http, so set one of them" $name $name $entry.existingSecret) -}}
{{- end -}}
{{- else -}}
{{- if not $entry.sha256 -}}
{{- fail (printf "%s.sha256 is empty, and nothing else says which file %s must have: give the checksum that `sha256sum` prints" $name $entry.uri) -}}
{{- end -}}
{{- if $entry.plainHttp -}}
{{- fail (printf "%s.plainHttp is true and %s.uri is %s: allowed with oci:// only" $name $name $entry.uri) -}}
{{- end -}}
{{- end -}}
{{- if ne $scheme "s3" -}}
{{- range $field := list "endpointUrl" "region" -}}
{{- if get $entry $field -}}
{{- fail (printf "%s.%s is %s and %s.uri is %s: allowed with s3:// only" $name $field (get $entry $field) $name $entry.uri) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a quantity such as 4Gi. */}}
{{- define "rtv.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .) | float64) | int64 -}}
{{- end -}}

{{/* The service stops collecting when a tenth of the volume is left, before it reaches its own limits. */}}
{{- define "rtv.checkSpool" -}}
{{- $v := .Values -}}
{{- $samples := dig "SAMPLES_MAX_BYTES" 2147483648 $v.settings | int64 -}}
{{- $rows := dig "DRIFT_HISTORY_BYTES" 268435456 $v.settings | int64 -}}
{{- $needed := divf (add $samples $rows | float64) 0.9 | ceil | int64 -}}
{{- $size := include "rtv.bytes" $v.persistence.spool.size | int64 -}}
{{- if and $v.sampling.enabled (lt $size $needed) -}}
{{- fail (printf "persistence.spool.size is %s, and samples need %d bytes: settings.SAMPLES_MAX_BYTES (%d), settings.DRIFT_HISTORY_BYTES (%d), and a tenth that stays free. Set a larger size, a smaller SAMPLES_MAX_BYTES, or sampling.enabled=false" $v.persistence.spool.size $needed $samples $rows) -}}
{{- end -}}
{{- end -}}

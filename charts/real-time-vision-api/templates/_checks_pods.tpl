{{/* Checks of pods: labels, volumes, GPUs, updates and disruptions. _checks.tpl includes them. */}}

{{/* Fails for keys that the chart writes itself; arguments: name of the value, the map, the keys of the chart. */}}
{{- define "rtv.checkKeys" -}}
{{- $name := index . 0 -}}
{{- $ours := index . 2 -}}
{{- range $key, $value := index . 1 -}}
{{- if has $key $ours -}}
{{- fail (printf "%s has %s (%v), which the chart sets itself and by which resources are selected or restarted: allowed are any others but %s" $name $key $value (join ", " $ours)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that the chart writes. */}}
{{- define "rtv.ownLabels" -}}
{{- concat (include "rtv.selectorLabels" . | fromYaml | keys) (include "rtv.chartLabels" . | fromYaml | keys) | sortAlpha | toJson -}}
{{- end -}}

{{- define "rtv.checkPods" -}}
{{- include "rtv.checkLabels" . -}}
{{- include "rtv.checkGpu" . -}}
{{- include "rtv.checkVolumes" . -}}
{{- include "rtv.checkUpdates" . -}}
{{- end -}}

{{- define "rtv.checkLabels" -}}
{{- $v := .Values -}}
{{- $labels := include "rtv.ownLabels" . | fromJsonArray -}}
{{- include "rtv.checkKeys" (list "podLabels" $v.podLabels $labels) -}}
{{- include "rtv.checkKeys" (list "commonLabels" $v.commonLabels $labels) -}}
{{- range $name := list "initContainers" "extraContainers" -}}
{{- range index $v $name -}}
{{- if eq .name "service" -}}
{{- fail (printf "%s has service, the name of the chart's container: allowed is any other" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.dnsPolicy "None") (not (get $v.dnsConfig "nameservers")) -}}
{{- fail "dnsPolicy is None and dnsConfig.nameservers is empty, so that pods could resolve no name: name at least one server" -}}
{{- end -}}
{{- range $part := list "serviceMonitor" "prometheusRule" "dashboard" -}}
{{- include "rtv.checkKeys" (list (printf "monitoring.%s.labels" $part) (index $v.monitoring $part).labels $labels) -}}
{{- end -}}
{{- include "rtv.checkKeys" (list "podAnnotations" $v.podAnnotations (list "checksum/secret" "checksum/existing-secrets" "kubectl.kubernetes.io/default-container")) -}}
{{- end -}}

{{- define "rtv.checkGpu" -}}
{{- $v := .Values -}}
{{- if and $v.gpu.enabled (gt (int $v.gpu.count) 1) (contains "/mig-" $v.gpu.resourceName) -}}
{{- fail (printf "gpu.count is %d and gpu.resourceName is %s, and CUDA does not number MIG instances: allowed is 1; for more set replicaCount or autoscaling.maxReplicas" (int $v.gpu.count) $v.gpu.resourceName) -}}
{{- end -}}
{{- range $part := list "requests" "limits" -}}
{{- range $resource, $amount := get $v.resources $part | default dict -}}
{{- if and $v.gpu.enabled (eq $resource $v.gpu.resourceName) -}}
{{- fail (printf "resources.%s has %s (%v), which the chart sets from gpu.resourceName and gpu.count: remove it from resources" $part $resource $amount) -}}
{{- end -}}
{{- if and (not $v.gpu.enabled) (hasPrefix "nvidia.com/" $resource) (not (hasKey $v.settings "DEVICE")) -}}
{{- fail (printf "resources.%s has %s (%v) and gpu.enabled is false, so the service would leave the GPU idle: set gpu.enabled=true and remove it from resources" $part $resource $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $v.gpu.enabled -}}
{{- range $key, $value := $v.gpu.nodeSelector -}}
{{- if and (hasKey $v.nodeSelector $key) (ne $value (get $v.nodeSelector $key)) -}}
{{- fail (printf "gpu.nodeSelector.%s is %s and nodeSelector.%s is %s: no node has both, so set one of them" $key $value $key (get $v.nodeSelector $key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A growing reference is made of the rows of one replica. Only files on the volume `spool` belong to one replica. */}}
{{- define "rtv.checkGrowingReference" -}}
{{- $given := dict -}}
{{- range .Values.extraEnv -}}{{- $_ := set $given .name (dig "value" "" .) -}}{{- end -}}
{{- range $name, $value := .Values.settings -}}{{- $_ := set $given $name $value -}}{{- end -}}
{{- $days := get $given "DRIFT_ROLLING_DAYS" | toString | default "0" -}}
{{- $path := get $given "REFERENCE_DATA_PATH" | toString -}}
{{- $own := printf "%s/" (clean .Values.persistence.spool.mountPath) -}}
{{- if and (eq (include "rtv.several" .) "true") (gt (int $days) 0) $path (not (hasPrefix $own (clean $path))) -}}
{{- fail (printf "DRIFT_ROLLING_DAYS is %s, there may be several replicas, and REFERENCE_DATA_PATH is %s, outside of persistence.spool.mountPath (%s), where each replica has a file of its own: replicas that share one reference would each replace it by their own days. Remove REFERENCE_DATA_PATH, or set DRIFT_ROLLING_DAYS to 0" $days $path .Values.persistence.spool.mountPath) -}}
{{- end -}}
{{- end -}}

{{- define "rtv.checkVolumes" -}}
{{- $p := .Values.persistence -}}
{{- $several := eq (include "rtv.several" .) "true" -}}
{{- $modelModes := ternary (list "ReadWriteMany") (list "ReadWriteMany" "ReadOnlyMany") (not (empty .Values.models.fetch)) -}}
{{- $starts := and (not $p.spool.enabled) (not .Values.gpu.enabled) (empty .Values.updateStrategy) -}}
{{- range $name, $shared := dict "models" $modelModes "data" (list "ReadWriteMany") "engines" (list "ReadWriteMany") -}}
{{- $volume := index $p $name -}}
{{- if and $volume.enabled (not $volume.existingClaim) -}}
{{- $fits := false -}}
{{- range $shared -}}{{- if has . $volume.accessModes -}}{{- $fits = true -}}{{- end -}}{{- end -}}
{{- if and $several (not $fits) -}}
{{- fail (printf "persistence.%s.accessModes is %s, and several replicas on different nodes mount the volume: allowed is %s" $name (join ", " $volume.accessModes) (join " or " $shared)) -}}
{{- end -}}
{{- if and $starts (not $fits) (has "ReadWriteOncePod" $volume.accessModes) -}}
{{- fail (printf "persistence.%s.accessModes is ReadWriteOncePod, and an update starts the new pod before the old one has released the volume: allowed is %s, or updateStrategy {type: Recreate}" $name (join " or " $shared)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "rtv.checkGrowingReference" . -}}
{{- $paths := dict "/tmp" "tmpSize" $p.spool.mountPath "persistence.spool.mountPath" -}}
{{- if eq $p.spool.mountPath "/tmp" -}}
{{- fail "persistence.spool.mountPath is /tmp, where metrics and sockets are: set another folder" -}}
{{- end -}}
{{- $mounts := list -}}
{{- range $name := list "models" "data" "engines" -}}
{{- if or (index $p $name).enabled (and (eq $name "models") $.Values.models.fetch) -}}
{{- $mounts = append $mounts (list (printf "persistence.%s.mountPath" $name) (index $p $name).mountPath) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $mounts = append $mounts (list (printf "extraVolumeMounts (%s)" .name) .mountPath) -}}
{{- end -}}
{{- range $mounts -}}
{{- $path := last . | trimSuffix "/" -}}
{{- if hasKey $paths $path -}}
{{- fail (printf "%s is %s, and so is the folder of %s: each volume needs a folder of its own" (first .) (last .) (get $paths $path)) -}}
{{- end -}}
{{- $_ := set $paths $path (first .) -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (list "tmp" "spool" "models" "engines" "data" "keys" "fetch-v1" "fetch-v2") -}}
{{- fail (printf "extraVolumes has %s, a name that the chart uses itself: allowed are any others but tmp, spool, models, engines, data, keys, fetch-v1, fetch-v2" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rtv.checkUpdates" -}}
{{- $v := .Values -}}
{{- if and $v.podDisruptionBudget.enabled (regexMatch "^0+%?$" (toString $v.podDisruptionBudget.maxUnavailable)) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable is %v, so that no node with a replica could ever be drained: allowed is 1 or more, or a percentage above 0%%" $v.podDisruptionBudget.maxUnavailable) -}}
{{- end -}}
{{- $kind := include "rtv.workloadKind" . -}}
{{- $types := ternary (list "RollingUpdate" "OnDelete") (list "RollingUpdate" "Recreate") (eq $kind "StatefulSet") -}}
{{- $type := get $v.updateStrategy "type" | default "RollingUpdate" -}}
{{- if not (has $type $types) -}}
{{- fail (printf "updateStrategy.type is %s, and with persistence.spool.enabled=%v the workload is a %s: allowed is %s" $type $v.persistence.spool.enabled $kind (join " or " $types)) -}}
{{- end -}}
{{- $rolling := get $v.updateStrategy "rollingUpdate" | default dict -}}
{{- if and (eq $kind "StatefulSet") (hasKey $rolling "maxSurge") -}}
{{- fail (printf "updateStrategy.rollingUpdate.maxSurge is %v, and with persistence.spool.enabled=true the workload is a StatefulSet, which starts no new pod first: remove maxSurge, or set persistence.spool.enabled=false" $rolling.maxSurge) -}}
{{- end -}}
{{- if and (regexMatch "^0+%?$" (toString (get $rolling "maxUnavailable"))) (or (eq $kind "StatefulSet") (regexMatch "^0+%?$" (toString (get $rolling "maxSurge")))) -}}
{{- fail (printf "updateStrategy.rollingUpdate.maxUnavailable is %v and no new pod is started first, so that no update could begin: allowed is 1 or more, or for a Deployment a maxSurge of 1 or more" $rolling.maxUnavailable) -}}
{{- end -}}
{{- end -}}

{{/* Checks of ports, addresses and WebRTC sessions. _checks.tpl includes them. */}}

{{/* Fails unless FIRST-LAST is a range of ports in ascending order; arguments: name of the value, the range. */}}
{{- define "rtv.checkRange" -}}
{{- $ports := splitList "-" (last .) -}}
{{- if gt (first $ports | int) (last $ports | int) -}}
{{- fail (printf "%s is %s, which is reversed: the first port must not be above the last, as in %s-%s" (first .) (last .) (last $ports) (first $ports)) -}}
{{- end -}}
{{- if gt (last $ports | int) 65535 -}}
{{- fail (printf "%s is %s: allowed are ports from 1024 to 65535" (first .) (last .)) -}}
{{- end -}}
{{- if lt (first $ports | int) 1024 -}}
{{- fail (printf "%s is %s: allowed are ports from 1024 to 65535" (first .) (last .)) -}}
{{- end -}}
{{- end -}}

{{/* Number of media ports. */}}
{{- define "rtv.udpPorts" -}}
{{- $ports := splitList "-" .Values.webrtc.udpPortRange -}}
{{- sub (last $ports | int) (first $ports | int) | add1 -}}
{{- end -}}

{{/* Sessions of a worker for which there are ports, at most the service's default; at least 1, because 0 switches WebRTC off. */}}
{{- define "rtv.sessionsMax" -}}
{{- div (include "rtv.udpPorts" . | int) (.Values.settings.WORKERS | default 1 | int) | min 64 | max 1 -}}
{{- end -}}

{{- define "rtv.checkPorts" -}}
{{- $v := .Values -}}
{{- include "rtv.checkRange" (list "webrtc.udpPortRange" $v.webrtc.udpPortRange) -}}
{{- include "rtv.checkRange" (list "coturn.relayPortRange" $v.coturn.relayPortRange) -}}
{{- $relays := splitList "-" $v.coturn.relayPortRange -}}
{{- if and $v.coturn.enabled (le (first $relays | int) 3478) (ge (last $relays | int) 3478) -}}
{{- fail (printf "coturn.relayPortRange is %s and contains 3478, on which the TURN server listens: leave this port out" $v.coturn.relayPortRange) -}}
{{- end -}}
{{- $workers := $v.settings.WORKERS | default 1 | int -}}
{{- $ports := include "rtv.udpPorts" . | int -}}
{{- if $v.webrtc.enabled -}}
{{- if gt $workers $ports -}}
{{- fail (printf "settings.WORKERS is %d and webrtc.udpPortRange (%s) has %d ports: a worker needs at least one, so allowed are at most %d workers or a larger range" $workers $v.webrtc.udpPortRange $ports $ports) -}}
{{- end -}}
{{- $sessions := mul $workers ($v.settings.WEBRTC_SESSIONS_MAX | default 1 | int) -}}
{{- if gt $sessions (int64 $ports) -}}
{{- fail (printf "settings.WEBRTC_SESSIONS_MAX is %d for each of %d workers, and webrtc.udpPortRange (%s) has %d ports, one for each session: allowed are at most %d sessions per worker, or a range of at least %d ports" ($v.settings.WEBRTC_SESSIONS_MAX | default 1 | int) $workers $v.webrtc.udpPortRange $ports (div $ports $workers) $sessions) -}}
{{- end -}}
{{- end -}}
{{- if and $v.webrtc.publicIP (eq (include "rtv.several" .) "true") -}}
{{- fail (printf "webrtc.publicIP is %s and there may be several replicas, which all would announce this one address: allowed is one replica; for several, use coturn, stunner or webrtc.iceServers" $v.webrtc.publicIP) -}}
{{- end -}}
{{- if and .Values.pathPrefix (hasKey $v.settings "ROOT_PATH") -}}
{{- fail (printf "pathPrefix is %s and settings.ROOT_PATH is %s: set only pathPrefix, which also sets ROOT_PATH" $v.pathPrefix $v.settings.ROOT_PATH) -}}
{{- end -}}
{{- include "rtv.checkFamilies" . -}}
{{- include "rtv.checkService" (list "service" $v.service) -}}
{{- include "rtv.checkService" (list "coturn.service" $v.coturn.service) -}}
{{- if and $v.service.externalTrafficPolicy (eq $v.service.type "ClusterIP") -}}
{{- fail (printf "service.externalTrafficPolicy is %s and service.type is ClusterIP, which has no external traffic: allowed with NodePort or LoadBalancer" $v.service.externalTrafficPolicy) -}}
{{- end -}}
{{- include "rtv.checkHost" . -}}
{{- $metrics := int $v.monitoring.metricsPort -}}
{{- if and $metrics (eq $metrics (int $v.containerPort)) -}}
{{- fail (printf "monitoring.metricsPort and containerPort are both %d: set different ports, or metricsPort 0 for metrics on the public port" $metrics) -}}
{{- end -}}
{{- if and $metrics (eq $metrics (int $v.service.port)) (not (include "rtv.metricsApart" .)) -}}
{{- fail (printf "monitoring.metricsPort and service.port are both %d, and one Service has both: set different ports" $metrics) -}}
{{- end -}}
{{- end -}}

{{- define "rtv.checkFamilies" -}}
{{- $v := .Values -}}
{{- $families := $v.service.ipFamilies -}}
{{- if and (eq $v.service.ipFamilyPolicy "SingleStack") (gt (len $families) 1) -}}
{{- fail (printf "service.ipFamilyPolicy is SingleStack and service.ipFamilies has %s: allowed is one family, or PreferDualStack or RequireDualStack" (join " and " $families)) -}}
{{- end -}}
{{- if and (gt (len $families) 1) (not $v.service.ipFamilyPolicy) -}}
{{- fail (printf "service.ipFamilies has %s and service.ipFamilyPolicy is empty, which means SingleStack: set PreferDualStack or RequireDualStack" (join " and " $families)) -}}
{{- end -}}
{{- if and (has "IPv6" $families) (eq $v.listenAddress "0.0.0.0") -}}
{{- fail "listenAddress is 0.0.0.0, which has no IPv6, and service.ipFamilies has IPv6: leave it empty, or set ::" -}}
{{- end -}}
{{- if and $v.coturn.enabled (eq (join "," $families) "IPv6") (not (contains ":" (join "," $v.coturn.podCIDRs))) -}}
{{- fail (printf "coturn.podCIDRs is %s and service.ipFamilies is IPv6 alone, so the TURN server would refuse every pod: name the IPv6 network of the pods, such as fd00:10:244::/56" (join ", " $v.coturn.podCIDRs)) -}}
{{- end -}}
{{- end -}}

{{/* Fields of Services that fit only some types; arguments: name of the value, the value. */}}
{{- define "rtv.checkService" -}}
{{- $name := first . -}}
{{- $service := last . -}}
{{- range $field := list "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" "healthCheckNodePort" -}}
{{- $value := get $service $field -}}
{{- if and $value (ne $service.type "LoadBalancer") -}}
{{- fail (printf "%s.%s is %v and %s.type is %s: allowed only with type LoadBalancer" $name $field $value $name $service.type) -}}
{{- end -}}
{{- end -}}
{{- if and $service.healthCheckNodePort (ne $service.externalTrafficPolicy "Local") -}}
{{- fail (printf "%s.healthCheckNodePort is %d and %s.externalTrafficPolicy is %q: allowed only with Local" $name (int $service.healthCheckNodePort) $name $service.externalTrafficPolicy) -}}
{{- end -}}
{{- if and $service.nodePort (eq $service.type "ClusterIP") -}}
{{- fail (printf "%s.nodePort is %d and %s.type is ClusterIP: allowed with NodePort or LoadBalancer" $name (int $service.nodePort) $name) -}}
{{- end -}}
{{- end -}}

{{/* Ports of the nodes. */}}
{{- define "rtv.checkHost" -}}
{{- $v := .Values -}}
{{- if and $v.hostNetwork $v.webrtc.hostPorts -}}
{{- fail "hostNetwork and webrtc.hostPorts are both true: with hostNetwork every port of the pod is one of its node already, so set one of them" -}}
{{- end -}}
{{- range $name, $set := dict "hostNetwork" $v.hostNetwork "webrtc.hostPorts" $v.webrtc.hostPorts -}}
{{- range $server := list "coturn" "stunner" -}}
{{- if and $set (index $v $server).enabled -}}
{{- fail (printf "%s is true, so clients get the addresses of nodes, and %s.enabled is true, which forwards only to addresses of pods: set one of them, or name another TURN server in webrtc.iceServers" $name $server) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.webrtc.hostPorts (not $v.webrtc.enabled) -}}
{{- fail "webrtc.hostPorts is true and webrtc.enabled is false: there are no media ports to open" -}}
{{- end -}}
{{- $ports := include "rtv.udpPorts" . | int -}}
{{- if and $v.webrtc.hostPorts (gt $ports 1000) -}}
{{- fail (printf "webrtc.hostPorts is true and webrtc.udpPortRange has %d ports, each of which is an entry of the pod: allowed are at most 1000, or hostNetwork" $ports) -}}
{{- end -}}
{{- if and $v.hostNetwork $v.dnsPolicy (eq $v.dnsPolicy "ClusterFirst") -}}
{{- fail "dnsPolicy is ClusterFirst and hostNetwork is true, with which it means Default, so that Services would have no names: leave it empty, or set ClusterFirstWithHostNet" -}}
{{- end -}}
{{- end -}}

{{/* Sentences about clients that the values invite and the network policy shuts out, one a line. The notes show them. */}}
{{- define "rtv.shutOut" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if $policy.enabled -}}
{{- $outside := or $policy.nodeCIDRs $policy.clientCIDRs $policy.extraIngressPeers -}}
{{- $known := concat $policy.ingressNamespaces $policy.clientNamespaces -}}
{{- if and (ne .Values.service.type "ClusterIP") (not $outside) }}
service.type is {{ .Values.service.type }}, and no address outside the cluster may connect: set networkPolicy.clientCIDRs (networks of clients, if the Service keeps their addresses) or networkPolicy.nodeCIDRs (networks of the nodes, if it does not).
{{- end }}
{{- if and .Values.ingress.enabled (not $policy.ingressNamespaces) (not $outside) }}
ingress.enabled is true, and no ingress controller may connect: set networkPolicy.ingressNamespaces, or networkPolicy.nodeCIDRs for a controller on the host network.
{{- end }}
{{- range .Values.httpRoute.enabled | ternary .Values.httpRoute.parentRefs list }}
{{- $namespace := .namespace | default $.Release.Namespace }}
{{- if not (or $outside (has $namespace $known) (and $policy.clientsInNamespace (eq $namespace $.Release.Namespace))) }}
httpRoute.parentRefs names a Gateway in namespace {{ $namespace }}, from which nobody may connect: unless its proxies run elsewhere, add it to networkPolicy.ingressNamespaces.
{{- end }}
{{- end }}
{{- if .Values.istio.enabled }}
{{- range .Values.istio.gateways }}
{{- $namespace := contains "/" . | ternary (splitList "/" . | first) $.Release.Namespace }}
{{- if not (or $outside (has $namespace $known) (eq $namespace $.Release.Namespace)) }}
istio.gateways names {{ . }}, and nobody in namespace {{ $namespace }} may connect: unless the gateway's proxies run elsewhere, add it to networkPolicy.ingressNamespaces.
{{- end }}
{{- end }}
{{- if not (or .Values.istio.gateways $policy.clientNamespaces $outside) }}
istio.enabled is true without gateways, and clients in the mesh may connect only from {{ $policy.clientsInNamespace | ternary "this namespace" "no namespace" }}: name others in networkPolicy.clientNamespaces.
{{- end }}
{{- if not (or $policy.mesh.ambient $policy.mesh.controlPlaneNamespace $policy.extraEgress) }}
istio.enabled is true, and sidecars may not reach their control plane: set networkPolicy.mesh.controlPlaneNamespace, such as istio-system, or networkPolicy.mesh.ambient if pods have no sidecars.
{{- end }}
{{- end }}
{{- if and .Values.monitoring.serviceMonitor.enabled (not $policy.prometheusNamespaces) (not $outside) }}
monitoring.serviceMonitor.enabled is true, and no Prometheus may scrape: set networkPolicy.prometheusNamespaces.
{{- end }}
{{- if and .Values.webrtc.enabled (not $policy.mediaCIDRs) (not (trim (include "rtv.turnPeers" .))) }}
webrtc.enabled is true, and no media may arrive: set networkPolicy.mediaCIDRs, coturn.enabled or stunner.enabled.
{{- end }}
{{- end -}}
{{- end -}}

{{/* Peers of network policies. */}}

{{/* Networks as peers. Whole address families exclude the addresses of cloud metadata and credentials. */}}
{{- define "rtv.networkPeers" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . }}
    {{- if eq . "0.0.0.0/0" }}
    except:
      - 169.254.0.0/16
      - 100.100.100.200/32
      - 168.63.129.16/32
      - 192.0.0.192/32
    {{- else if eq . "::/0" }}
    except:
      - fe80::/10
      - fd00:ec2::/32
    {{- else if hasPrefix "169.254." . }}
    {{- fail (printf "networkPolicy allows %s, in which clouds keep their metadata: only networkPolicy.dnsCIDRs may" .) }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "rtv.namespacePeers" -}}
{{- range . }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end -}}

{{/* Port at which pods receive the tunnels of Istio's ambient mode, in place of their own ports. */}}
{{- define "rtv.ambientPort" -}}
{{- if .Values.networkPolicy.mesh.ambient -}}
- protocol: TCP
  port: 15008
{{- end -}}
{{- end -}}

{{/* First and last of a port range, as a port of a NetworkPolicy. */}}
{{- define "rtv.udpRange" -}}
{{- $ports := splitList "-" . -}}
- protocol: UDP
  port: {{ first $ports }}
  endPort: {{ last $ports }}
{{- end -}}

{{/* Whether samples may go to a bucket. A role is visible only in the annotations of the ServiceAccount. */}}
{{- define "rtv.usesS3" -}}
{{- $given := or (include "rtv.awsSecret" .) .Values.serviceAccount.annotations .Values.s3.endpointUrl -}}
{{- if and .Values.sampling.enabled (or (eq .Values.sampling.store "s3") (and (eq .Values.sampling.store "auto") $given)) -}}
true
{{- end -}}
{{- end -}}

{{- define "rtv.s3Egress" -}}
{{- include "rtv.urlEgress" (list (default "https://s3.amazonaws.com" .Values.s3.endpointUrl) .Values.networkPolicy.s3CIDRs) -}}
{{- end -}}

{{/* Namespace of a server in the cluster, by its address (`http://NAME.NAMESPACE.svc…`); nothing for any other server. */}}
{{- define "rtv.namespaceOf" -}}
{{- $labels := splitList "." (urlParse .).hostname -}}
{{- if ge (len $labels) 3 -}}
{{- if eq (index $labels 2) "svc" -}}{{- index $labels 1 -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* One rule for the server at an address: for a server in the cluster by its namespace, with any port of its pods; for any
     other server by the networks in the second argument. */}}
{{- define "rtv.urlEgress" -}}
{{- $url := urlParse (first .) -}}
{{- with include "rtv.namespaceOf" (first .) -}}
- to:
    {{- include "rtv.namespacePeers" (list .) | trim | nindent 4 }}
{{- else -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
- to:
    {{- include "rtv.networkPeers" (last .) | trim | nindent 4 }}
  ports:
    - protocol: TCP
      port: {{ $port }}
{{- end -}}
{{- end -}}

{{/* Pods of coturn or STUNner, which forward clients' media. */}}
{{- define "rtv.turnPeers" -}}
{{- if .Values.coturn.enabled }}
- podSelector:
    matchLabels:
      {{- include "rtv.coturnSelectorLabels" . | nindent 6 }}
{{- end }}
{{- if .Values.stunner.enabled }}
{{- include "rtv.namespacePeers" (list (default .Release.Namespace .Values.stunner.namespace)) }}
{{- end }}
{{- end -}}

{{/* 10.244.0.0/16 in coturn's form: 10.244.0.0-10.244.255.255. Ranges stay as they are. */}}
{{- define "rtv.addressRange" -}}
{{- if not (contains "/" .) -}}
{{- . -}}
{{- else if contains ":" . -}}
{{- include "rtv.addressRangeV6" . -}}
{{- else -}}
{{- $parts := splitList "/" . -}}
{{- $bits := last $parts | int -}}
{{- $first := list -}}
{{- $last := list -}}
{{- range $index, $byte := splitList "." (first $parts) -}}
{{- /* Host bits in this byte, and the number of addresses that they give. */}}
{{- $open := max 0 (min 8 (sub (mul 8 (add1 $index)) $bits)) | int -}}
{{- $size := 1 -}}
{{- range until $open -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- $from := mul (div (int $byte) $size) $size -}}
{{- $first = append $first (toString $from) -}}
{{- $last = append $last (toString (sub (add $from $size) 1)) -}}
{{- end -}}
{{- printf "%s-%s" (join "." $first) (join "." $last) -}}
{{- end -}}
{{- end -}}

{{/* fd00:10:244::/56 in coturn's form: fd00:10:244:0:0:0:0:0-fd00:10:244:ff:ffff:ffff:ffff:ffff. */}}
{{- define "rtv.addressRangeV6" -}}
{{- $parts := splitList "/" . -}}
{{- $bits := last $parts | int -}}
{{- $halves := splitList "::" (first $parts) -}}
{{- $groups := splitList ":" (first $halves) | compact -}}
{{- if eq (len $halves) 2 -}}
{{- $tail := splitList ":" (last $halves) | compact -}}
{{- range until (sub 8 (add (len $groups) (len $tail)) | int) -}}{{- $groups = append $groups "0" -}}{{- end -}}
{{- $groups = concat $groups $tail -}}
{{- end -}}
{{- $first := list -}}
{{- $last := list -}}
{{- range $index, $group := $groups -}}
{{- $value := 0 -}}
{{- range splitList "" (lower $group) -}}{{- $value = add (mul $value 16) (splitList . "0123456789abcdef" | first | len) -}}{{- end -}}
{{- /* Host bits in this group, and the number of addresses that they give. */}}
{{- $open := max 0 (min 16 (sub (mul 16 (add1 $index)) $bits)) | int -}}
{{- $size := 1 -}}
{{- range until $open -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- $from := mul (div $value $size) $size -}}
{{- $first = append $first (printf "%x" $from) -}}
{{- $last = append $last (printf "%x" (sub (add $from $size) 1)) -}}
{{- end -}}
{{- printf "%s-%s" (join ":" $first) (join ":" $last) -}}
{{- end -}}

{{/* Address or name of a host for URLs: an IPv6 address is in brackets there. */}}
{{- define "rtv.urlHost" -}}
{{- if and (contains ":" .) (not (hasPrefix "[" .)) -}}
{{- printf "[%s]" . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Address on which the service listens: that of both families if its Service has IPv6. */}}
{{- define "rtv.listenAddress" -}}
{{- $s := .Values.service -}}
{{- $ipv6 := or (has "IPv6" $s.ipFamilies) (hasSuffix "DualStack" $s.ipFamilyPolicy) -}}
{{- .Values.listenAddress | default (ternary "::" "0.0.0.0" $ipv6) -}}
{{- end -}}

{{/* Address families of a Service. */}}
{{- define "rtv.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How a Service is reached from outside the cluster, by its values. */}}
{{- define "rtv.externalService" -}}
type: {{ .type }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .loadBalancerIP }}
loadBalancerIP: {{ . }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and .externalTrafficPolicy (ne .type "ClusterIP") }}
externalTrafficPolicy: {{ .externalTrafficPolicy }}
{{- end }}
{{- with .healthCheckNodePort }}
healthCheckNodePort: {{ . }}
{{- end }}
{{- end -}}

{{/* DNS, without which no address can be found. */}}
{{- define "rtv.dnsEgress" -}}
{{- $policy := .Values.networkPolicy -}}
# DNS. Policies see the ports of pods, and OpenShift's DNS servers listen on 5353.
- to:
    {{- include "rtv.namespacePeers" $policy.dnsNamespaces | trim | nindent 4 }}
    {{- range $policy.dnsCIDRs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  ports:
    {{- range $port := list 53 5353 }}
    {{- range $protocol := list "UDP" "TCP" }}
    - protocol: {{ $protocol }}
      port: {{ $port }}
    {{- end }}
    {{- end }}
{{- end -}}

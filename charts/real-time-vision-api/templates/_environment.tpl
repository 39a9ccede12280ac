{{/* Settings of the service. A test compares the names with the service's table of settings. */}}

{{- define "rtv.environment" -}}
{{- $v := .Values -}}
- name: HOST
  value: {{ include "rtv.listenAddress" . | quote }}
- name: PORT
  value: {{ $v.containerPort | quote }}
{{- with $v.pathPrefix }}
- name: ROOT_PATH
  value: {{ . }}
{{- end }}
{{- if not (hasKey $v.settings "LOG_FORMAT") }}
- name: LOG_FORMAT
  value: json
{{- end }}
{{- if $v.gpu.enabled }}
- name: DEVICE
  value: {{ include "rtv.gpuDevices" . }}
- name: ENGINE_CACHE_DIR
  value: {{ ternary $v.persistence.engines.mountPath (printf "%s/engines" $v.persistence.spool.mountPath) $v.persistence.engines.enabled }}
{{- else if not (hasKey $v.settings "DEVICE") }}
- name: DEVICE
  value: cpu
{{- end }}
{{- if and (not $v.gpu.enabled) (not (hasKey $v.settings "INFERENCE_LANES")) (dig "requests" "cpu" "" $v.resources) }}
# As many inference threads as requested cores. Without this the service would count the cores of the node.
- name: INFERENCE_LANES
  valueFrom:
    resourceFieldRef:
      containerName: service
      resource: requests.cpu
      divisor: "1"
{{- end }}
# Replicas forward requests about sessions to each other; the headless Service names all of them.
- name: REPLICA_ADDRESS
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: REPLICA_PEERS
  value: {{ include "rtv.fullname" . }}-replicas
{{- range $version := list "v1" "v2" }}
{{- with include "rtv.modelPath" (list $ $version) }}
- name: MODEL_{{ upper $version }}_PATH
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $v.versions.split }}
- name: SPLIT_V2
  value: {{ . | quote }}
{{- end }}
{{- with $v.versions.shadow }}
- name: SHADOW_V2
  value: {{ . | quote }}
{{- end }}
{{- if not (hasKey $v.settings "VERSIONS_STATE_FILE") }}
# Models are mounted read-only; each replica keeps the choice of models on its own volume.
- name: VERSIONS_STATE_FILE
  value: {{ printf "%s/versions.json" $v.persistence.spool.mountPath }}
{{- end }}
- name: DRAIN_DELAY_S
  value: {{ $v.drain.delaySeconds | quote }}
- name: DRAIN_TIMEOUT_S
  value: {{ $v.drain.timeoutSeconds | quote }}
- name: SAMPLES_DRAIN_S
  value: {{ $v.drain.samplesSeconds | quote }}
{{- with include "rtv.apiKeysSecret" . }}
- name: API_KEYS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ include "rtv.apiKeysKey" $ }}
{{- end }}
{{- with include "rtv.adminKeysSecret" . }}
- name: ADMIN_API_KEYS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ include "rtv.adminKeysKey" $ }}
{{- end }}
{{- if $v.monitoring.metricsPort }}
- name: METRICS_PORT
  value: {{ $v.monitoring.metricsPort | quote }}
{{- end }}
{{- if $v.auth.keysFileSecret }}
- name: API_KEYS_FILE
  value: /etc/real-time-vision-api/keys/{{ $v.auth.keysFileSecretKey }}
{{- end }}
- name: ALLOW_ANONYMOUS
  value: {{ $v.auth.allowAnonymous | quote }}
{{- if not (hasKey $v.settings "ALLOWED_HOSTS") }}
- name: ALLOWED_HOSTS
  value: {{ include "rtv.allowedHosts" . | quote }}
{{- end }}
- name: SAMPLING
  value: {{ $v.sampling.enabled | quote }}
{{- if $v.sampling.enabled }}
- name: SAMPLES_STORE
  value: {{ $v.sampling.store }}
- name: SAMPLES_DIR
  value: {{ printf "%s/samples" $v.persistence.spool.mountPath }}
{{- if not (hasKey $v.settings "REFERENCE_DATA_PATH") }}
- name: REFERENCE_DATA_PATH
  value: {{ printf "%s/reference_features.json" $v.persistence.spool.mountPath }}
{{- end }}
{{- if and $v.driftEvaluation.enabled (not (hasKey $v.settings "DRIFT_ROWS")) }}
- name: DRIFT_ROWS
  value: "true"
{{- end }}
{{ include "rtv.bucketEnvironment" . }}
{{- include "rtv.awsCredentials" (list . (include "rtv.awsSecret" .)) }}
{{- end }}
{{- include "rtv.webrtcEnvironment" . }}
{{- range $name, $value := $v.settings }}
- name: {{ $name }}
  value: {{ include "rtv.settingValue" $value }}
{{- end }}
{{- end -}}

{{/* The GPUs of a replica as a value of DEVICE: each has an inference process. */}}
{{- define "rtv.gpuDevices" -}}
{{- $devices := list .Values.gpu.device -}}
{{- if gt (int .Values.gpu.count) 1 -}}
{{- $devices = list -}}
{{- range $number := until (int .Values.gpu.count) -}}
{{- $devices = append $devices (printf "%s:%d" $.Values.gpu.device $number) -}}
{{- end -}}
{{- end -}}
{{- join "," $devices -}}
{{- end -}}

{{/* A setting as a quoted text. Helm reads numbers as floats: whole ones must not be written as 2.097152e+06. */}}
{{- define "rtv.settingValue" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}
{{- int64 . | quote -}}
{{- else -}}
{{- . | quote -}}
{{- end -}}
{{- end -}}

{{/* The bucket of samples, without credentials. */}}
{{- define "rtv.bucketEnvironment" -}}
{{- $v := .Values -}}
- name: S3_BUCKET_NAME
  value: {{ $v.s3.bucket | quote }}
{{- with $v.s3.prefix }}
- name: S3_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- with $v.s3.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $v.s3.endpointUrl }}
- name: S3_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with $v.s3.encryption }}
- name: S3_ENCRYPTION
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Variables with the credentials in a Secret; arguments: the root, its name, which may be empty. The chart's own Secret uses the
     default keys. */}}
{{- define "rtv.awsCredentials" -}}
{{- $v := (first .).Values.awsCredentials }}
{{- $own := eq (last .) (include "rtv.fullname" (first .)) }}
{{- with last . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ ternary "AWS_ACCESS_KEY_ID" $v.accessKeyIdKey $own }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ ternary "AWS_SECRET_ACCESS_KEY" $v.secretAccessKeyKey $own }}
{{- if and (not $own) $v.sessionTokenKey }}
- name: AWS_SESSION_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $v.sessionTokenKey }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "rtv.webrtcEnvironment" -}}
{{- $v := .Values }}
{{- if $v.webrtc.enabled }}
- name: UDP_PORT_RANGE
  value: {{ $v.webrtc.udpPortRange | quote }}
{{- if and (not (hasKey $v.settings "WEBRTC_SESSIONS_MAX")) (lt (include "rtv.sessionsMax" . | int) 64) }}
# Workers share the ports, and a session needs one.
- name: WEBRTC_SESSIONS_MAX
  value: {{ include "rtv.sessionsMax" . | quote }}
{{- end }}
{{- if $v.webrtc.publicIP }}
- name: PUBLIC_IP
  value: {{ $v.webrtc.publicIP | quote }}
{{- else if $v.webrtc.hostPorts }}
# The node's address, at which the media ports are open.
- name: PUBLIC_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- end }}
{{- with include "rtv.iceServers" . }}
- name: ICE_SERVERS
  value: {{ . | quote }}
{{- end }}
{{- with include "rtv.turnSecret" . }}
- name: TURN_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ include "rtv.turnKey" $ }}
{{- end }}
{{- else }}
- name: WEBRTC_SESSIONS_MAX
  value: "0"
{{- end }}
{{- end -}}

{{/* STUN and TURN servers that clients get: yours, and those that the chart runs or connects. */}}
{{- define "rtv.iceServers" -}}
{{- $servers := .Values.webrtc.iceServers -}}
{{- if .Values.coturn.enabled -}}
{{- range $transport := list "udp" "tcp" -}}
{{- $servers = append $servers (printf "turn:%s:%d?transport=%s" (include "rtv.urlHost" $.Values.coturn.host) (int $.Values.coturn.service.port) $transport) -}}
{{- end -}}
{{- if .Values.coturn.tls.enabled -}}
{{- $servers = append $servers (printf "turns:%s:%d?transport=tcp" (include "rtv.urlHost" .Values.coturn.host) (int .Values.coturn.tls.port)) -}}
{{- end -}}
{{- end -}}
{{- if .Values.stunner.enabled -}}
{{- $servers = append $servers (printf "turn:%s:%d?transport=udp" (include "rtv.urlHost" .Values.stunner.host) (int .Values.stunner.port)) -}}
{{- end -}}
{{- join "," $servers -}}
{{- end -}}

{{/* Names under which clients reach the pods: those of the Service, and the hosts of ingress and gateways. If these accept
     any name, so does the service. Names without a dot and addresses need no entry. */}}
{{- define "rtv.allowedHosts" -}}
{{- $v := .Values -}}
{{- $service := printf "%s.%s" (include "rtv.fullname" .) .Release.Namespace -}}
{{- $hosts := list $service (printf "%s.svc" $service) "*.svc.cluster.local" -}}
{{- if $v.ingress.enabled -}}{{- $hosts = concat $hosts (default (list "*") $v.ingress.hosts) -}}{{- end -}}
{{- if $v.httpRoute.enabled -}}{{- $hosts = concat $hosts (default (list "*") $v.httpRoute.hostnames) -}}{{- end -}}
{{- if $v.istio.enabled -}}{{- $hosts = concat $hosts $v.istio.hosts -}}{{- end -}}
{{- if has "*" $hosts -}}*{{- else -}}{{- uniq $hosts | join "," -}}{{- end -}}
{{- end -}}

{{/* The pod of a replica. workload.yaml owns it, and _environment.tpl has its settings. */}}

{{- define "rtv.podTemplate" -}}
metadata:
  labels:
    {{- include "rtv.selectorLabels" . | nindent 4 }}
    {{- with merge (dict) .Values.podLabels .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of a Secret that is read at the start restarts the pods, with the next upgrade of the release.
    checksum/secret: {{ include (print .Template.BasePath "/secret.yaml") . | sha256sum }}
    {{- with include "rtv.secretVersions" (list . (list .Values.auth.existingSecret .Values.auth.adminExistingSecret .Values.awsCredentials.existingSecret .Values.webrtc.turn.existingSecret)) }}
    checksum/existing-secrets: {{ . | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: service
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "rtv.serviceAccountName" . }}
  automountServiceAccountToken: false
  # Otherwise Kubernetes would set variables for every Service of the namespace, which the service could take for settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- with .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- include "rtv.placement" . | trim | nindent 2 }}
  {{- if or .Values.models.fetch .Values.initContainers }}
  initContainers:
    {{- with include "rtv.fetchContainers" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.initContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: service
      image: {{ include "rtv.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      env:
        {{- include "rtv.environment" . | nindent 8 }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ .Values.containerPort }}
          protocol: TCP
        {{- with .Values.monitoring.metricsPort }}
        - name: metrics
          containerPort: {{ . }}
          protocol: TCP
        {{- end }}
        {{- if and .Values.webrtc.enabled .Values.webrtc.hostPorts }}
        {{- $range := splitList "-" .Values.webrtc.udpPortRange }}
        {{- range untilStep (first $range | int) (last $range | int | add1 | int) 1 }}
        - name: udp-{{ . }}
          containerPort: {{ . }}
          hostPort: {{ . }}
          protocol: UDP
        {{- end }}
        {{- end }}
      {{- include "rtv.probes" . | nindent 6 }}
      lifecycle:
        preStop:
          # Kubernetes updates the endpoints during this sleep; the service gets SIGTERM afterwards.
          {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
          sleep:
            seconds: {{ .Values.drain.preStopSeconds }}
          {{- else }}
          exec:
            command: ["sleep", {{ .Values.drain.preStopSeconds | quote }}]
          {{- end }}
      resources:
        {{- include "rtv.resources" . | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        - name: spool
          mountPath: {{ .Values.persistence.spool.mountPath }}
        {{- if include "rtv.hasModels" . }}
        - name: models
          mountPath: {{ .Values.persistence.models.mountPath }}
          readOnly: true
        {{- end }}
        {{- if .Values.persistence.engines.enabled }}
        - name: engines
          mountPath: {{ .Values.persistence.engines.mountPath }}
        {{- end }}
        {{- if .Values.persistence.data.enabled }}
        - name: data
          mountPath: {{ .Values.persistence.data.mountPath }}
        {{- end }}
        {{- if .Values.auth.keysFileSecret }}
        # Mount the whole folder, because a single mounted file is not updated with its Secret.
        - name: keys
          mountPath: /etc/real-time-vision-api/keys
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
  # Processes exchange frames in a sealed memfd, so no volume at /dev/shm is needed.
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ .Values.tmpSize }}
    {{- if not .Values.persistence.spool.enabled }}
    - name: spool
      emptyDir:
        sizeLimit: {{ .Values.persistence.spool.size }}
    {{- end }}
    {{- if .Values.persistence.models.enabled }}
    - name: models
      persistentVolumeClaim:
        claimName: {{ default (printf "%s-models" (include "rtv.fullname" .)) .Values.persistence.models.existingClaim }}
        # Init containers write to it; the service's own mount is read-only in any case.
        readOnly: {{ empty .Values.models.fetch }}
    {{- else if .Values.models.fetch }}
    - name: models
      emptyDir:
        sizeLimit: {{ .Values.persistence.models.size }}
    {{- end }}
    {{- range $version, $entry := .Values.models.fetch }}
    {{- if and $entry.existingSecret (not (hasPrefix "s3:" $entry.uri)) }}
    - name: fetch-{{ $version }}
      secret:
        secretName: {{ $entry.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- end }}
    {{- if .Values.persistence.engines.enabled }}
    - name: engines
      persistentVolumeClaim:
        claimName: {{ default (printf "%s-engines" (include "rtv.fullname" .)) .Values.persistence.engines.existingClaim }}
    {{- end }}
    {{- if .Values.persistence.data.enabled }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ default (printf "%s-data" (include "rtv.fullname" .)) .Values.persistence.data.existingClaim }}
    {{- end }}
    {{- if .Values.auth.keysFileSecret }}
    - name: keys
      secret:
        secretName: {{ .Values.auth.keysFileSecret }}
        # Readable by the pod's group, to which the service belongs.
        defaultMode: 0440
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* /health is 200 from the end of the warm-up until the drain begins; /livez is 200 while the inference process runs or is
     being restarted. So a crash of the inference process makes a replica unready but does not end its streams. */}}
{{- define "rtv.probes" -}}
{{- $start := .Values.settings.MODEL_START_TIMEOUT_S | default 600 | float64 -}}
startupProbe:
  httpGet:
    path: /health
    port: http
  periodSeconds: {{ .Values.startupProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.startupProbe.timeoutSeconds }}
  # If the models do not load in time, the service ends by itself and says why; the kubelet must not kill it before.
  failureThreshold: {{ divf (addf $start 30) .Values.startupProbe.periodSeconds | ceil | int }}
livenessProbe:
  httpGet:
    path: /livez
    port: http
  periodSeconds: {{ .Values.livenessProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.livenessProbe.timeoutSeconds }}
  failureThreshold: {{ .Values.livenessProbe.failureThreshold }}
readinessProbe:
  httpGet:
    path: /health
    port: http
  periodSeconds: {{ .Values.readinessProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.readinessProbe.timeoutSeconds }}
  failureThreshold: {{ .Values.readinessProbe.failureThreshold }}
{{- end -}}

{{- define "rtv.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $gpu := dict .Values.gpu.resourceName (int .Values.gpu.count) -}}
{{- $resources = mergeOverwrite $resources (dict "requests" $gpu "limits" $gpu) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Where pods run, in common with the placeholders of warmSpares. */}}
{{- define "rtv.placement" -}}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- if and .Values.gpu.enabled .Values.gpu.runtimeClassName }}
runtimeClassName: {{ .Values.gpu.runtimeClassName }}
{{- end }}
{{- with merge (dict) .Values.nodeSelector (ternary .Values.gpu.nodeSelector dict .Values.gpu.enabled) }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.tolerations (ternary .Values.gpu.tolerations list .Values.gpu.enabled) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .Values.topologySpreadConstraints }}
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rtv.selectorLabels" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end -}}

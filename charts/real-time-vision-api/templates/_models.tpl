{{/* Model files, and the init containers that fetch them. */}}

{{/* Name of a fetched model; argument: the entry of models.fetch. By default the last part of its address, without tag, digest,
     query and .onnx. */}}
{{- define "rtv.fetchName" -}}
{{- if .name -}}
{{- .name -}}
{{- else -}}
{{- regexReplaceAll ":.*$" (regexReplaceAll "[?#@].*$" .uri "" | base) "" | lower | trimSuffix ".onnx" -}}
{{- end -}}
{{- end -}}

{{/* Folder of a fetched model below the mount path. Its name has a digest of what the values say about the file, so that another
     file or manifest gets another folder: running replicas keep theirs, and a rollback finds it. */}}
{{- define "rtv.fetchFolder" -}}
{{- $what := list (regexReplaceAll "[?#].*$" .uri "") (.sha256 | default "") (.manifest | default dict) | toJson | sha256sum -}}
{{- printf "%s-%s" (include "rtv.fetchName" .) (trunc 12 $what) -}}
{{- end -}}

{{/* Path of the model of a version, or nothing for the bundled one; arguments: the root, the version. */}}
{{- define "rtv.modelPath" -}}
{{- $root := first . -}}
{{- $mount := $root.Values.persistence.models.mountPath -}}
{{- $file := index $root.Values.models (last .) -}}
{{- $fetched := index $root.Values.models.fetch (last .) -}}
{{- if $fetched -}}
{{- printf "%s/%s/%s.onnx" $mount (include "rtv.fetchFolder" $fetched) (include "rtv.fetchName" $fetched) -}}
{{- else if $file -}}
{{- ternary $file (printf "%s/%s" $mount $file) (hasPrefix "/" $file) -}}
{{- end -}}
{{- end -}}

{{/* Whether pods have a folder with models. */}}
{{- define "rtv.hasModels" -}}
{{- if or .Values.persistence.models.enabled .Values.models.fetch -}}
true
{{- end -}}
{{- end -}}

{{- define "rtv.fetchContainers" -}}
{{- range $version, $entry := .Values.models.fetch }}
{{- $mount := $.Values.persistence.models.mountPath }}
{{- $scheme := urlParse $entry.uri | dig "scheme" "" }}
- name: fetch-{{ $version }}
  image: {{ include "rtv.image" $ }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  securityContext:
    {{- toYaml $.Values.securityContext | nindent 4 }}
  # Without a checksum the digest in the address identifies the file. A damaged file is replaced.
  args:
    - models
    - pull
    - {{ $entry.uri | quote }}
    - --to
    - {{ printf "%s/%s" $mount (include "rtv.fetchFolder" $entry) | quote }}
    - --name
    - {{ include "rtv.fetchName" $entry | quote }}
    - --force
    {{- with $entry.sha256 }}
    - --sha256
    - {{ . | quote }}
    {{- end }}
    {{- with $entry.manifest }}
    - --manifest
    - {{ toJson . | quote }}
    {{- end }}
    {{- if $entry.plainHttp }}
    - --plain-http
    {{- end }}
  {{- $own := include "rtv.fetchEnvironment" (list $ $entry $scheme) | trim }}
  {{- if or $own $.Values.extraEnv }}
  env:
    {{- with $own }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- range $.Values.extraEnv }}
    {{- if not (contains (printf "- name: %s\n" .name) $own) }}
    {{- toYaml (list .) | nindent 4 }}
    {{- end }}
    {{- end }}
  {{- end }}
  {{- with $.Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $.Values.models.fetchResources | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    - name: models
      mountPath: {{ $mount }}
    {{- if and $entry.existingSecret (ne $scheme "s3") }}
    - name: fetch-{{ $version }}
      mountPath: /etc/real-time-vision-api/fetch
      readOnly: true
    {{- end }}
    {{- with $.Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Variables of an init container; arguments: the root, the entry, the scheme of its address. */}}
{{- define "rtv.fetchEnvironment" -}}
{{- $v := (index . 0).Values }}
{{- $entry := index . 1 }}
{{- $scheme := index . 2 }}
{{- if eq $scheme "s3" }}
{{- with $entry.region | default $v.s3.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $entry.endpointUrl | default $v.s3.endpointUrl }}
- name: S3_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with $v.settings.S3_ADDRESSING_STYLE }}
- name: S3_ADDRESSING_STYLE
  value: {{ . | quote }}
{{- end }}
{{- include "rtv.awsCredentials" (list (index . 0) ($entry.existingSecret | default (include "rtv.awsSecret" (index . 0)))) }}
{{- else if and $entry.existingSecret (eq $scheme "oci") }}
- name: REGISTRY_AUTH_FILE
  value: /etc/real-time-vision-api/fetch/.dockerconfigjson
{{- else if $entry.existingSecret }}
- name: NETRC
  value: /etc/real-time-vision-api/fetch/netrc
{{- end }}
{{- end -}}

{{/* Egress to the servers of models, one rule for each. */}}
{{- define "rtv.fetchEgress" -}}
{{- $rules := list -}}
{{- range .Values.models.fetch -}}
{{- $url := urlParse .uri -}}
{{- if eq $url.scheme "s3" -}}
{{- $endpoint := .endpointUrl | default $.Values.s3.endpointUrl | default "https://s3.amazonaws.com" -}}
{{- $rules = append $rules (include "rtv.urlEgress" (list $endpoint $.Values.networkPolicy.s3CIDRs)) -}}
{{- else -}}
{{- $server := printf "%s://%s" (ternary "http" "https" (default false .plainHttp)) $url.host -}}
{{- $rules = append $rules (include "rtv.urlEgress" (list $server $.Values.networkPolicy.modelCIDRs)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" (uniq $rules) -}}
{{- end -}}

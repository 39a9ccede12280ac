{{/* Checks of values that depend on each other, which a schema cannot express. Rendered once, with the workload. */}}

{{/* Seconds from the start of a pod's termination until its last process is killed: preStop, the service's own phases,
     a quarter of a second for late requests, and five seconds each before workers and the sampling process are killed. */}}
{{- define "rtv.drainWindow" -}}
{{- $d := .Values.drain -}}
{{- addf $d.preStopSeconds $d.delaySeconds $d.timeoutSeconds 5 $d.samplesSeconds 5 | ceil | int -}}
{{- end -}}

{{- define "rtv.check" -}}
{{- $window := include "rtv.drainWindow" . | int -}}
{{- if not (or .Values.auth.allowAnonymous (include "rtv.wantsKeys" .)) -}}
{{- fail "auth is empty, and everybody who can reach the pods could use the service: set auth.existingSecret, auth.keysFileSecret or auth.apiKeys, or settings.JWT_JWKS, or auth.allowAnonymous=true if that is intended" -}}
{{- end -}}
{{- if le (int .Values.terminationGracePeriodSeconds) $window -}}
{{- fail (printf "terminationGracePeriodSeconds is %d and the drain takes up to %d seconds (drain.* and 10): set a larger value, or pods are killed while they still process frames" (int .Values.terminationGracePeriodSeconds) $window) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %d, less than autoscaling.minReplicas, %d" (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- end -}}
{{- range $removed := list "droppedPercent" "queueAgeMs" "demandPercent" -}}
{{- if hasKey $.Values.autoscaling.targets $removed -}}
{{- fail (printf "autoscaling.targets.%s has been removed: set autoscaling.targets.loadPercent instead, the percentage of its measured capacity that each replica may be asked for, which also rises with dropped, waiting and refused frames" $removed) -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling.keda.fallback.replicas -}}
{{- if or (lt (int .) (int $.Values.autoscaling.minReplicas)) (gt (int .) (int $.Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.keda.fallback.replicas is %d: give a number from autoscaling.minReplicas, %d, to autoscaling.maxReplicas, %d, or 0 for no fallback" (int .) (int $.Values.autoscaling.minReplicas) (int $.Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (eq .Values.autoscaling.method "keda") (not .Values.autoscaling.keda.prometheusAddress) -}}
{{- fail "autoscaling.keda.prometheusAddress is empty: KEDA queries Prometheus, for example at http://prometheus-operated.monitoring.svc:9090" -}}
{{- end -}}
{{- include "rtv.checkPorts" . -}}
{{- include "rtv.checkPods" . -}}
{{- include "rtv.checkModels" . -}}
{{- include "rtv.checkSpool" . -}}
{{- include "rtv.checkEphemeral" . -}}
{{- include "rtv.checkNetworks" . -}}
{{- include "rtv.checkDrift" . -}}
{{- if and .Values.awsCredentials.accessKeyId (not .Values.awsCredentials.secretAccessKey) -}}
{{- fail "awsCredentials.accessKeyId is set and awsCredentials.secretAccessKey is empty" -}}
{{- end -}}
{{- if and (eq .Values.sampling.store "s3") (not .Values.sampling.enabled) -}}
{{- fail "sampling.store is s3 and sampling.enabled is false: nothing would be stored" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway to attach to, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if ne (add (int .Values.istio.split.v1) (int .Values.istio.split.v2)) 100 -}}
{{- fail (printf "istio.split.v1 and istio.split.v2 are %d and %d: together they must be 100" (int .Values.istio.split.v1) (int .Values.istio.split.v2)) -}}
{{- end -}}
{{- include "rtv.checkSplit" . -}}
{{- if and (or .Values.coturn.enabled .Values.stunner.enabled) (not .Values.webrtc.enabled) -}}
{{- fail "webrtc.enabled is false, so a TURN server would have nothing to forward to: set coturn.enabled and stunner.enabled to false" -}}
{{- end -}}
{{- if and .Values.coturn.enabled .Values.stunner.enabled -}}
{{- fail "coturn.enabled and stunner.enabled are both true: one TURN server is enough" -}}
{{- end -}}
{{- if and (or .Values.coturn.enabled .Values.stunner.enabled) (not (include "rtv.turnSecret" .)) -}}
{{- fail "a TURN server needs webrtc.turn.existingSecret, the Secret that it shares with the service" -}}
{{- end -}}
{{- if .Values.coturn.enabled -}}
{{- if not .Values.coturn.host -}}
{{- fail "coturn.host is empty: the name or address at which clients reach the TURN server" -}}
{{- end -}}
{{- with .Values.coturn.tls -}}
{{- if and .enabled (not .existingSecret) -}}
{{- fail "coturn.tls.enabled is true and coturn.tls.existingSecret is empty: name the Secret with the certificate of coturn.host (tls.crt and tls.key)" -}}
{{- end -}}
{{- if and .enabled (eq (int .port) (int $.Values.coturn.service.port)) -}}
{{- fail (printf "coturn.tls.port and coturn.service.port are both %d: give them different ports, such as 443 and 3478" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.coturn.tls -}}
{{- if and .nodePort (not .enabled) -}}
{{- fail (printf "coturn.tls.nodePort is %d and coturn.tls.enabled is false: set one of them" (int .nodePort)) -}}
{{- end -}}
{{- if and .nodePort (eq $.Values.coturn.service.type "ClusterIP") -}}
{{- fail (printf "coturn.tls.nodePort is %d and coturn.service.type is ClusterIP: allowed with NodePort or LoadBalancer" (int .nodePort)) -}}
{{- end -}}
{{- if and .nodePort (eq (int .nodePort) (int $.Values.coturn.service.nodePort)) -}}
{{- fail (printf "coturn.tls.nodePort and coturn.service.nodePort are both %d, and both take TCP: give them different ports" (int .nodePort)) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.coturn.podCIDRs -}}
{{- fail "coturn.podCIDRs is empty: the networks of the cluster's pods, to which the TURN server may forward, such as [10.244.0.0/16]" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.stunner.enabled (not .Values.stunner.host) -}}
{{- fail "stunner.host is empty: the name or address at which clients reach the Gateway" -}}
{{- end -}}
{{- if and .Values.gpu.enabled (hasKey .Values.settings "DEVICE") -}}
{{- fail "settings.DEVICE is set and gpu.enabled is true: set gpu.device instead" -}}
{{- end -}}
{{- if and .Values.gpu.enabled (ne (int .Values.gpu.cuda) 13) (or .Values.image.tag .Values.image.digest) -}}
{{- fail (printf "gpu.cuda is %d and image.%s names an image, which decides about CUDA: remove one of them" (int .Values.gpu.cuda) (ternary "digest" "tag" (not (empty .Values.image.digest)))) -}}
{{- end -}}
{{- if eq (get .Values.settings "DRIFT_ENGINE") "evidently" -}}
{{- if not .Values.sampling.enabled -}}
{{- fail "settings.DRIFT_ENGINE is evidently and sampling.enabled is false, so drift is not watched: enable sampling, or remove DRIFT_ENGINE" -}}
{{- end -}}
{{- if has (toString (get .Values.settings "DRIFT") | lower) (list "false" "0" "no" "off" "n" "f") -}}
{{- fail "settings.DRIFT_ENGINE is evidently and settings.DRIFT is false, so drift is not watched: remove one of them" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.webrtc.enabled) (hasKey .Values.settings "WEBRTC_SESSIONS_MAX") -}}
{{- fail "settings.WEBRTC_SESSIONS_MAX is set and webrtc.enabled is false: set one of them" -}}
{{- end -}}
{{- $monitor := .Values.monitoring.serviceMonitor -}}
{{- if gt (include "rtv.milliseconds" $monitor.scrapeTimeout | int) (include "rtv.milliseconds" $monitor.interval | int) -}}
{{- fail (printf "monitoring.serviceMonitor.scrapeTimeout is %s, longer than monitoring.serviceMonitor.interval, %s, which Prometheus refuses: allowed is at most the interval" $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- $ours := list -}}
{{- range include "rtv.environment" . | fromYamlArray -}}
{{- $ours = append $ours .name -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name $ours -}}
{{- fail (printf "extraEnv has %s, which the chart sets already: use the value that it comes from, or settings" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Two splits at once would hide each other, and a split needs two models. The bundled v2 is served only beside the bundled v1. */}}
{{- define "rtv.checkSplit" -}}
{{- $split := .Values.versions.split -}}
{{- if and .Values.istio.enabled .Values.istio.split.v2 $split -}}
{{- fail (printf "istio.split.v2 is %d and versions.split is %v: Istio would choose the version of every request, so set one of them" (int .Values.istio.split.v2) $split) -}}
{{- end -}}
{{- if and (or $split (and .Values.istio.enabled .Values.istio.split.v2)) (include "rtv.modelPath" (list . "v1")) (not (include "rtv.modelPath" (list . "v2"))) -}}
{{- fail (printf "%s sends clients to v2, and only v1 has a model: set models.v2 or models.fetch.v2" (ternary "versions.split" "istio.split.v2" (gt (float64 $split) 0.0))) -}}
{{- end -}}
{{- if and .Values.versions.shadow (include "rtv.modelPath" (list . "v1")) (not (include "rtv.modelPath" (list . "v2"))) -}}
{{- fail "versions.shadow lets v2 run frames of v1, and only v1 has a model: set models.v2 or models.fetch.v2" -}}
{{- end -}}
{{- end -}}

{{/* Milliseconds of a duration such as 1m30s. */}}
{{- define "rtv.milliseconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

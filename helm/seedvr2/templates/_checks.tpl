{{- /* What can't work together is refused here, with what to do about it. */ -}}
{{- define "seedvr2.check" -}}
{{- if and (eq .Values.store.type "directory") (gt (int .Values.gateway.replicas) 1) -}}
{{- fail "gateway.replicas is above 1, but a directory belongs to one gateway: set store.type to s3" -}}
{{- end -}}
{{- if and .Values.minio.existingSecret .Values.minio.accessKey -}}
{{- fail "minio.existingSecret and minio.accessKey are both set; use one of them" -}}
{{- end -}}
{{- if ne (empty .Values.minio.accessKey) (empty .Values.minio.secretKey) -}}
{{- fail "minio.accessKey and minio.secretKey go together" -}}
{{- end -}}
{{- $tls := .Values.gateway.tls -}}
{{- if and (or $tls.caSecret $tls.clientCaSecret $tls.clientSecret) (not $tls.existingSecret) -}}
{{- fail "gateway.tls.caSecret, clientCaSecret and clientSecret need gateway.tls.existingSecret: without a certificate of its own the gateway speaks no TLS" -}}
{{- end -}}
{{- if and .Values.ui.enabled $tls.clientCaSecret (not $tls.clientSecret) -}}
{{- fail "gateway.tls.clientCaSecret lets in only who shows a certificate: name the page's in gateway.tls.clientSecret" -}}
{{- end -}}
{{- if ne (empty .Values.inference.tls.existingSecret) (empty .Values.inference.tls.clientSecret) -}}
{{- fail "inference.tls.existingSecret and inference.tls.clientSecret go together: workers and gateways each show a certificate" -}}
{{- end -}}
{{- if ne (empty .Values.ui.signIn.userHeader) (empty .Values.ui.signIn.tokenSecret) -}}
{{- fail "ui.signIn.userHeader and ui.signIn.tokenSecret go together: who believes a proxy acts for its people by a token of its own" -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.parentRefs) -}}
{{- fail "gatewayApi.enabled needs gatewayApi.parentRefs: the Gateway that routes are attached to" -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.inference.pools -}}
{{- if has .name $names -}}{{- fail (printf "there are two pools with the name %s" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- include "seedvr2.checkPool" (dict "root" $ "pool" (include "seedvr2.pool" (dict "root" $ "pool" .) | fromJson)) -}}
{{- end -}}
{{- end -}}

{{- define "seedvr2.checkPool" -}}
{{- $pool := .pool -}}
{{- $models := .root.Values.models -}}
{{- if and (gt (int $pool.gpus) 1) (contains "/mig-" $pool.gpuResource) -}}
{{- fail (printf "pool %s: NCCL can't join parts of GPUs; a worker uses one %s" $pool.name $pool.gpuResource) -}}
{{- end -}}
{{- if and (gt (int $pool.sequence) 0) (ne (mod (max 1 (int $pool.gpus)) (int $pool.sequence)) 0) -}}
{{- fail (printf "pool %s: sequence %v does not divide its %v GPUs" $pool.name $pool.sequence $pool.gpus) -}}
{{- end -}}
{{- if and (gt (int $pool.nodes) 1) (gt (int $pool.sequence) 0) -}}
{{- fail (printf "pool %s: the GPUs of all %v nodes share a span; leave sequence 0" $pool.name $pool.nodes) -}}
{{- end -}}
{{- if and (gt (int $pool.nodes) 1) (contains "/mig-" $pool.gpuResource) -}}
{{- fail (printf "pool %s: NCCL can't join parts of GPUs, on several nodes neither; use a node each" $pool.name) -}}
{{- end -}}
{{- $group := include "seedvr2.groupName" (dict "root" .root "pool" $pool.name) -}}
{{- if and (gt (int $pool.nodes) 1) (gt (len $group) 48) -}}
{{- fail (printf "pool %s: %s is too long a name for a LeaderWorkerSet, 48 letters at most; shorten the pool's name or fullnameOverride" $pool.name $group) -}}
{{- end -}}
{{- range list "rank_hosts" "meeting_address" -}}
{{- if and (gt (int $pool.nodes) 1) (hasKey $pool.settings .) -}}
{{- fail (printf "pool %s: settings.%s follows from nodes; leave it out" $pool.name .) -}}
{{- end -}}
{{- end -}}
{{- if and (ne $pool.model "nano") (eq $models.volume.type "none") -}}
{{- fail (printf "pool %s: %s has to come from somewhere; choose models.volume.type" $pool.name $pool.model) -}}
{{- end -}}
{{- if and (ne $pool.model "nano") (eq $models.volume.type "image") (not $pool.modelImage) -}}
{{- fail (printf "pool %s: models.volume.type is image; name the pool's modelImage" $pool.name) -}}
{{- end -}}
{{- if and (eq $models.volume.type "image") (semverCompare "<1.31-0" .root.Capabilities.KubeVersion.Version) -}}
{{- fail "models.volume.type image needs Kubernetes 1.31 or newer, with the feature ImageVolume" -}}
{{- end -}}
{{- if and (eq $pool.autoscaling.type "keda") (not $pool.autoscaling.prometheusAddress) -}}
{{- fail (printf "pool %s: autoscaling by KEDA needs autoscaling.prometheusAddress" $pool.name) -}}
{{- end -}}
{{- if and (eq $pool.autoscaling.type "hpa") (eq (int $pool.autoscaling.min) 0) -}}
{{- fail (printf "pool %s: only KEDA scales to none; set autoscaling.min to 1" $pool.name) -}}
{{- end -}}
{{- if and (eq (int $pool.maxSurge) 0) (eq (int $pool.maxUnavailable) 0) -}}
{{- fail (printf "pool %s: maxSurge and maxUnavailable are both 0, so an upgrade could not begin" $pool.name) -}}
{{- end -}}
{{- end -}}

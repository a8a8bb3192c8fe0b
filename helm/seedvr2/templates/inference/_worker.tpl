{{- /* The variables of a worker. Dict: root, pool. */ -}}
{{- define "seedvr2.workerOwn" -}}
{{- $pool := .pool -}}
{{- $gpus := int $pool.gpus -}}
address: "0.0.0.0:50061"
health_address: "0.0.0.0:50063"
metrics_address: "0.0.0.0:9102"
pool: {{ $pool.name }}
model: {{ $pool.model }}
device: {{ ternary "cuda" "cpu" (gt $gpus 0) }}
# Of each pod.
ranks: {{ max 1 $gpus }}
sequence: {{ int $pool.sequence }}
drain_s: {{ $pool.drainSeconds }}
rank_start_s: {{ $pool.startupSeconds }}
{{- if ne .root.Values.models.volume.type "none" }}
model_directory: /models
{{- end }}
{{- if .root.Values.inference.tls.existingSecret }}
tls_certificate_file: /run/seedvr2/tls/tls.crt
tls_key_file: /run/seedvr2/tls/tls.key
tls_client_ca_file: /run/seedvr2/tls/ca.crt
{{- if gt (int $pool.nodes) 1 }}
rank_hosts_ca_file: /run/seedvr2/tls/ca.crt
{{- with .root.Values.inference.tls.serverName }}
rank_hosts_server_name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The variables of a pod that starts ranks for the leader of its group. Dict: root, pool. */ -}}
{{- define "seedvr2.rankHostOwn" -}}
address: "0.0.0.0:50062"
health_address: "0.0.0.0:50063"
metrics_address: "0.0.0.0:9102"
pool: {{ .pool.name }}
# The leader's spans end first.
drain_s: {{ add (include "seedvr2.seconds" .pool.drainSeconds) 30 }}
{{- with .pool.settings.log_level }}
log_level: {{ . }}
{{- end }}
{{- if .root.Values.inference.tls.existingSecret }}
tls_certificate_file: /run/seedvr2/tls/tls.crt
tls_key_file: /run/seedvr2/tls/tls.key
tls_client_ca_file: /run/seedvr2/tls/ca.crt
{{- end }}
{{- end -}}

{{- /* What the containers of a worker may use of the node: GPUs beside what the pool says. Dict: pool. */ -}}
{{- define "seedvr2.workerResources" -}}
{{- $pool := .pool -}}
{{- $resources := deepCopy $pool.resources -}}
{{- if gt (int $pool.gpus) 0 -}}
{{- $limits := deepCopy ($resources.limits | default dict) -}}
{{- $_ := set $limits $pool.gpuResource (int $pool.gpus) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- /* The volume with models; workers only read it. Dict: root, pool. */ -}}
{{- define "seedvr2.modelVolume" -}}
{{- $models := .root.Values.models -}}
{{- $type := $models.volume.type -}}
{{- if ne $type "none" -}}
- name: models
  {{- if eq $type "claim" }}
  persistentVolumeClaim:
    claimName: {{ include "seedvr2.fullname" .root }}-models
  {{- else if eq $type "existingClaim" }}
  persistentVolumeClaim:
    claimName: {{ required "models.volume.type is existingClaim: name it in models.volume.existingClaim" $models.volume.existingClaim }}
  {{- else if eq $type "hostPath" }}
  hostPath:
    path: {{ $models.volume.hostPath }}
    type: Directory
  {{- else if eq $type "image" }}
  {{- if .pool.modelImage }}
  image:
    reference: {{ .pool.modelImage }}
    pullPolicy: {{ $models.volume.pullPolicy }}
  {{- else }}
  emptyDir: {}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* Where an OCI image's files are expected: the root of the image has the model's files. Dict: root, pool, readOnly. */ -}}
{{- define "seedvr2.modelMount" -}}
{{- $volume := .root.Values.models.volume -}}
{{- if ne $volume.type "none" -}}
- name: models
  mountPath: {{ ternary (printf "/models/%s" .pool.model) "/models" (and (eq $volume.type "image") (not (empty .pool.modelImage))) }}
  {{- if and $volume.subPath (ne $volume.type "image") }}
  subPath: {{ $volume.subPath }}
  {{- end }}
  readOnly: {{ .readOnly }}
{{- end -}}
{{- end -}}

{{- /* Whether an init container brings the model. Dict: root, pool. */ -}}
{{- define "seedvr2.fetches" -}}
{{- $models := .root.Values.models -}}
{{- if and $models.fetch.enabled (has $models.volume.type (list "claim" "existingClaim" "hostPath")) (ne .pool.model "nano") -}}
true
{{- end -}}
{{- end -}}

{{- /* The init container that brings a model, or goes on where another one was cut. Dict: root, pool, image. */ -}}
{{- define "seedvr2.fetchContainer" -}}
{{- $fetch := .root.Values.models.fetch -}}
- name: models
  image: {{ .image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [seedvr2, models, fetch, {{ .pool.model }}]
  env:
    {{- $own := dict "directory" "/models" }}
    {{- if $fetch.existingSecret }}{{ $_ := set $own "token_file" "/run/seedvr2/hub/token" }}{{ end }}
    {{- include "seedvr2.env" (dict "prefix" "SEEDVR2_MODELS" "own" $own "settings" $fetch) | nindent 4 }}
  resources:
    {{- toYaml $fetch.resources | nindent 4 }}
  securityContext:
    {{- include "seedvr2.containerSecurity" (dict "root" .root "settings" .pool) | nindent 4 }}
  volumeMounts:
    {{- include "seedvr2.modelMount" (dict "root" .root "pool" .pool "readOnly" false) | nindent 4 }}
    - {name: tmp, mountPath: /tmp}
    {{- if $fetch.existingSecret }}
    - {name: hub, mountPath: /run/seedvr2/hub, readOnly: true}
    {{- end }}
{{- end -}}

{{- /* The image of a pool's workers. Dict: root, pool. */ -}}
{{- define "seedvr2.workerImage" -}}
{{- $base := ternary .root.Values.inference.image .root.Values.inference.cpuImage (gt (int .pool.gpus) 0) -}}
{{- /* The digest is of the image that it was given with. */ -}}
{{- with .pool.image }}{{ if or .tag .repository }}{{ $base = omit $base "digest" }}{{ end }}{{ end -}}
{{- include "seedvr2.image" (dict "root" .root "image" (include "seedvr2.overlay" (dict "over" .pool.image "under" $base) | fromYaml)) -}}
{{- end -}}

{{- /* The template of a worker's pods. Dict: root, pool, role: leader or host where a worker has several pods, else absent. A host starts
       ranks for the leader of its group; all else is alike. */ -}}
{{- define "seedvr2.workerPod" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $hosts := eq (default "" .role) "host" -}}
{{- $context := dict "root" $root "pool" $pool -}}
{{- $who := dict "root" $root "component" "inference" "pool" $pool.name "settings" $pool -}}
{{- $image := include "seedvr2.workerImage" $context -}}
{{- $fetches := include "seedvr2.fetches" $context -}}
metadata:
  labels:
    {{- include "seedvr2.podLabels" $who | nindent 4 }}
    seedvr2.io/model: {{ $pool.model }}
    {{- with .role }}
    seedvr2.io/role: {{ . }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: inference
    {{- with $pool.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- include "seedvr2.pod" (merge (dict "serviceAccount" (include "seedvr2.serviceAccount" (dict "root" $root "component" "inference" "account" $root.Values.inference.serviceAccount))) $who) | nindent 2 }}
  # A span in hand ends, or is handed back; then ranks stop and answers leave.
  terminationGracePeriodSeconds: {{ add (include "seedvr2.seconds" $pool.drainSeconds) 60 }}
  {{- if or $fetches $pool.extraInitContainers }}
  initContainers:
    {{- if $fetches }}{{ include "seedvr2.fetchContainer" (merge (dict "image" $image) $context) | nindent 4 }}{{ end }}
    {{- with $pool.extraInitContainers }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
  containers:
    - name: inference
      image: {{ $image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- if $hosts }}
      command: [python, -m, services.inference.hosts]
      {{- end }}
      env:
        {{- if $hosts }}
        {{- include "seedvr2.env" (dict "prefix" "SEEDVR2_RANK_HOST" "own" (include "seedvr2.rankHostOwn" . | fromYaml) "settings" (omit $pool "settings")) | nindent 8 }}
        {{- else }}
        {{- include "seedvr2.env" (dict "prefix" "SEEDVR2_INFERENCE" "own" (include "seedvr2.workerOwn" . | fromYaml) "all" (include "seedvr2.tracing" $root | fromYaml) "settings" $pool) | nindent 8 }}
        {{- end }}
      {{- include "seedvr2.envFrom" $pool | nindent 6 }}
      ports:
        {{- if $hosts }}
        - {name: ranks, containerPort: 50062}
        {{- else }}
        - {name: grpc, containerPort: 50061}
        {{- end }}
        - {name: health, containerPort: 50063}
        - {name: metrics, containerPort: 9102}
      {{- include "seedvr2.grpcProbes" (dict "port" 50063 "startupSeconds" $pool.startupSeconds "startupService" (ternary "seedvr2.live" "" (not (empty .role)))) | nindent 6 }}
      resources:
        {{- include "seedvr2.workerResources" $context | nindent 8 }}
      securityContext:
        {{- include "seedvr2.containerSecurity" $who | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- include "seedvr2.modelMount" (merge (dict "readOnly" true) $context) | nindent 8 }}
        {{- if $root.Values.inference.tls.existingSecret }}
        - {name: tls, mountPath: /run/seedvr2/tls, readOnly: true}
        {{- end }}
        {{- with $pool.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
    {{- with $pool.extraContainers }}{{ toYaml . | nindent 4 }}{{ end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ $pool.tmp }}}
    # In memory, and counted against the container's limit.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $pool.shm }}}
    {{- include "seedvr2.modelVolume" $context | nindent 4 }}
    {{- if and $fetches $root.Values.models.fetch.existingSecret }}
    - name: hub
      secret:
        secretName: {{ $root.Values.models.fetch.existingSecret }}
        defaultMode: 0440
        items:
          - {key: {{ $root.Values.models.fetch.tokenKey }}, path: token}
    {{- end }}
    {{- with $root.Values.inference.tls.existingSecret }}{{ include "seedvr2.secretVolume" (dict "name" "tls" "secret" .) | nindent 4 }}{{ end }}
    {{- with $pool.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

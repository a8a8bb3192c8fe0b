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

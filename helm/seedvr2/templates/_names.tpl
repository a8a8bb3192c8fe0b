{{- /* Names, labels, images and scalars: what every object needs. */ -}}

{{- define "seedvr2.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 32 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name, with the chart's where it isn't part of it. Short enough for "-inference-" and a pool after it. */ -}}
{{- define "seedvr2.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else if contains (include "seedvr2.name" .) .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "seedvr2.name" .) | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The labels that select an object's pods; they never change in an installation. Dict: root, component, pool (may be absent). */ -}}
{{- define "seedvr2.selector" -}}
app.kubernetes.io/name: {{ include "seedvr2.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
seedvr2.io/pool: {{ . }}
{{- end }}
{{- end -}}

{{- /* All labels of an object. Dict: root, component, pool. */ -}}
{{- define "seedvr2.labels" -}}
{{- $own := include "seedvr2.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Values.image.tag | default .root.Chart.AppVersion | trunc 63) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "seedvr2" -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- include "seedvr2.overlay" (dict "over" $own "under" .root.Values.commonLabels) -}}
{{- end -}}

{{- /* The metadata of an object. Dict: root, name, component, pool, annotations (may be absent). */ -}}
{{- define "seedvr2.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "seedvr2.labels" . | nindent 2 }}
{{- with include "seedvr2.overlay" (dict "over" .annotations "under" .root.Values.commonAnnotations) | fromYaml }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* An image's full name. Dict: root, image {registry, repository, tag, digest}; the tag's default is the chart's. */ -}}
{{- define "seedvr2.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry | default .root.Values.image.registry -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .image.repository -}}
{{- if .image.digest -}}
@{{ .image.digest }}
{{- else -}}
:{{ .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* A map laid over another one, key by key: `over` wins, false and 0 too. Dict: over, under. */ -}}
{{- define "seedvr2.overlay" -}}
{{- $result := deepCopy (.under | default dict) -}}
{{- range $key, $value := .over | default dict }}{{ $_ := set $result $key $value }}{{ end -}}
{{- toYaml $result -}}
{{- end -}}

{{- /* A value as the text of an environment variable; large numbers stay whole. */ -}}
{{- define "seedvr2.text" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else if kindIs "slice" . }}{{ join "," . | quote }}{{ else }}{{ toJson . | quote }}{{ end -}}
{{- end -}}

{{- /* Whole seconds of a number of seconds. */ -}}
{{- define "seedvr2.seconds" -}}
{{- ceil (float64 .) | int -}}
{{- end -}}

{{- /* How long a pool's first worker may take: a node, an image and a model, then its start. A pool's settings. */ -}}
{{- define "seedvr2.coldStartSeconds" -}}
{{- add (include "seedvr2.seconds" .startupSeconds | int) 1800 -}}
{{- end -}}

{{- /* The name of a component's service account. Dict: root, component, account. */ -}}
{{- define "seedvr2.serviceAccount" -}}
{{- if .account.create -}}
{{- .account.name | default (printf "%s-%s" (include "seedvr2.fullname" .root) .component) -}}
{{- else -}}
{{- .account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* A pool's settings: the defaults with the pool's laid over them, maps key by key. Dict: root, pool. */ -}}
{{- define "seedvr2.pool" -}}
{{- $result := deepCopy .root.Values.inference.defaults -}}
{{- range $key, $value := .pool -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $result $key)) -}}
{{- $_ := set $result $key (include "seedvr2.overlay" (dict "over" $value "under" (get $result $key)) | fromYaml) -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $result -}}
{{- end -}}

{{- define "seedvr2.poolName" -}}
{{- printf "%s-inference-%s" (include "seedvr2.fullname" .root) .pool -}}
{{- end -}}

{{- /* A LeaderWorkerSet's name, which its controller gives to a Service, too. Dict: root, pool (a name). */ -}}
{{- define "seedvr2.groupName" -}}
{{- printf "%s-group-%s" (include "seedvr2.fullname" .root) .pool -}}
{{- end -}}

{{- define "seedvr2.bundledName" -}}
{{- printf "%s-s3" (include "seedvr2.fullname" .) -}}
{{- end -}}

{{- /* The URL of the S3 server. */ -}}
{{- define "seedvr2.s3Endpoint" -}}
{{- if .Values.minio.server.enabled -}}
{{- printf "http://%s.%s.svc:8333" (include "seedvr2.bundledName" .) .Release.Namespace -}}
{{- else -}}
{{- required "store.type is s3: name the server in minio.endpoint, or enable minio.server for a trial" .Values.minio.endpoint -}}
{{- end -}}
{{- end -}}

{{- /* The Secret with the S3 credentials; empty where the pod's IAM role is used. */ -}}
{{- define "seedvr2.s3Secret" -}}
{{- if .Values.minio.existingSecret -}}
{{- .Values.minio.existingSecret -}}
{{- else if or .Values.minio.accessKey .Values.minio.server.enabled -}}
{{- printf "%s-s3" (include "seedvr2.fullname" .) -}}
{{- end -}}
{{- end -}}

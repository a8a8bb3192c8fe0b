{{- /* What all pods of the chart have in common. */ -}}

{{- /* Who a pod runs as, where it may run, and who pulls its images. Dict: root, settings (of its component), component, pool,
       serviceAccount (a name), token (whether it may ask the Kubernetes API). */ -}}
{{- define "seedvr2.pod" -}}
{{- $settings := .settings -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with concat (.root.Values.imagePullSecrets | default list) (.root.Values.global.imagePullSecrets | default list) | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "seedvr2.overlay" (dict "over" $settings.podSecurityContext "under" .root.Values.podSecurityContext) | nindent 2 }}
{{- with $settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $settings.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $settings.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with $settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.extraPodSpec }}
{{ toYaml . }}
{{- end }}
{{- with $settings.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- include "seedvr2.overlay" (dict "over" . "under" (dict "labelSelector" (dict "matchLabels" (include "seedvr2.selector" $ | fromYaml)))) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The labels of a pod: not the chart's version, for which no worker shall start anew. Dict: root, settings, component, pool. */ -}}
{{- define "seedvr2.podLabels" -}}
{{- $labels := omit (include "seedvr2.labels" . | fromYaml) "helm.sh/chart" "app.kubernetes.io/version" -}}
{{- include "seedvr2.overlay" (dict "over" $labels "under" .settings.podLabels) -}}
{{- end -}}

{{- /* What a container may: nothing beyond its volumes. Dict: root, settings. */ -}}
{{- define "seedvr2.containerSecurity" -}}
{{- include "seedvr2.overlay" (dict "over" .settings.securityContext "under" .root.Values.securityContext) -}}
{{- end -}}

{{- /* Variables: the chart's own, then those of `settings`, then extraEnv. Dict: prefix, own (a dict of names without prefix), all (a
       dict of whole names), settings (of its component). What users set wins. */ -}}
{{- define "seedvr2.env" -}}
{{- $values := dict -}}
{{- range $name, $value := .own }}{{ $_ := set $values (printf "%s_%s" $.prefix ($name | upper)) $value }}{{ end -}}
{{- range $name, $value := .all }}{{ $_ := set $values $name $value }}{{ end -}}
{{- range $name, $value := .settings.settings }}{{ $_ := set $values (printf "%s_%s" $.prefix ($name | upper)) $value }}{{ end -}}
{{- range $name, $value := $values }}
- name: {{ $name }}
  value: {{ include "seedvr2.text" $value }}
{{- end }}
{{- with .settings.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Variables of tracing, the same for pages, gateways and workers. Argument: root. */ -}}
{{- define "seedvr2.tracing" -}}
{{- range $name, $value := .Values.tracing.settings }}
SEEDVR2_TRACING_{{ upper $name }}: {{ toJson $value }}
{{- end }}
{{- end -}}

{{- define "seedvr2.extraInitContainers" -}}
{{- with .extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "seedvr2.envFrom" -}}
{{- with .extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Probes of a gRPC server by the standard health service. Dict: port (a number), startupSeconds, startupService: which one has
       started by then (may be absent: all). Starting may take long; living is answering at all, so that a worker whose ranks start
       anew is not killed for it. */ -}}
{{- define "seedvr2.grpcProbes" -}}
startupProbe:
  grpc:
    port: {{ .port }}
    {{- with .startupService }}
    service: {{ . }}
    {{- end }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add (include "seedvr2.seconds" .startupSeconds | int) 4) 5 }}
readinessProbe:
  grpc:
    port: {{ .port }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  grpc:
    port: {{ .port }}
    service: seedvr2.live
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- /* Sleep before SIGTERM, so that nobody is sent to a pod that has stopped listening. */ -}}
{{- define "seedvr2.preStop" -}}
{{- if gt (int .) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int . }}
{{- end }}
{{- end -}}

{{- /* Connection and credentials of the S3 server: variables, mounts and volumes. */ -}}
{{- define "seedvr2.s3Variables" -}}
SEEDVR2_S3_ENDPOINT: {{ include "seedvr2.s3Endpoint" . | quote }}
SEEDVR2_S3_PUBLIC_ENDPOINT: {{ .Values.minio.publicEndpoint | quote }}
SEEDVR2_S3_BUCKET: {{ .Values.minio.bucket | quote }}
SEEDVR2_S3_PREFIX: {{ .Values.minio.prefix | quote }}
SEEDVR2_S3_REGION: {{ .Values.minio.region | quote }}
SEEDVR2_S3_PATH_STYLE: {{ .Values.minio.pathStyle }}
SEEDVR2_S3_ENCRYPTION: {{ .Values.minio.encryption.type | quote }}
SEEDVR2_S3_KMS_KEY: {{ .Values.minio.encryption.kmsKey | quote }}
SEEDVR2_S3_SCRATCH_DIRECTORY: /data/scratch
{{- with include "seedvr2.s3Secret" . }}
SEEDVR2_S3_ACCESS_KEY_FILE: /run/seedvr2/s3/access-key
SEEDVR2_S3_SECRET_KEY_FILE: /run/seedvr2/s3/secret-key
{{- end }}
{{- if .Values.minio.tls.caSecret }}
SEEDVR2_S3_CA_FILE: /run/seedvr2/s3-ca/ca.crt
{{- end }}
{{- end -}}

{{- define "seedvr2.s3Mounts" -}}
{{- with include "seedvr2.s3Secret" . }}
- {name: s3, mountPath: /run/seedvr2/s3, readOnly: true}
{{- end }}
{{- if .Values.minio.tls.caSecret }}
- {name: s3-ca, mountPath: /run/seedvr2/s3-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "seedvr2.s3Volumes" -}}
{{- with include "seedvr2.s3Secret" . }}
- name: s3
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: {{ $.Values.minio.accessKeyKey }}, path: access-key}
      - {key: {{ $.Values.minio.secretKeyKey }}, path: secret-key}
{{- end }}
{{- with .Values.minio.tls.caSecret }}
- name: s3-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0444
    items:
      - {key: {{ $.Values.minio.tls.caKey }}, path: ca.crt}
{{- end }}
{{- end -}}

{{- /* A volume with files of a Secret. Dict: name, secret. */ -}}
{{- define "seedvr2.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
{{- end -}}

{{- /* A volume with the authority of a Secret alone, without a key that may lie beside it. Argument: the Secret. */ -}}
{{- define "seedvr2.caVolume" -}}
- name: ca
  secret:
    secretName: {{ . }}
    defaultMode: 0444
    items:
      - {key: ca.crt, path: ca.crt}
{{- end -}}

{{- /* Rules of NetworkPolicies. */ -}}

{{- /* To whoever resolves names. Argument: root. */ -}}
{{- define "seedvr2.dnsRule" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* To or from a component of this release. Dict: root, component, ports (a list), direction (to or from). */ -}}
{{- define "seedvr2.peerRule" -}}
- {{ .direction }}:
    - podSelector:
        matchLabels:
          {{- include "seedvr2.selector" (dict "root" .root "component" .component) | nindent 10 }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{- /* To or from whom users listed; an empty list means anyone. Dict: peers, ports, direction. */ -}}
{{- define "seedvr2.listedRule" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .peers }}
  {{ $.direction }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* The port of a URL, as text. */ -}}
{{- define "seedvr2.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{- /* To the S3 server, wherever it is. Argument: root. */ -}}
{{- define "seedvr2.storeRule" -}}
{{- if .Values.minio.server.enabled -}}
{{- include "seedvr2.peerRule" (dict "root" . "component" "s3" "ports" (list 8333) "direction" "to") -}}
{{- else -}}
{{- $port := include "seedvr2.port" (include "seedvr2.s3Endpoint" .) -}}
{{- include "seedvr2.listedRule" (dict "peers" .Values.networkPolicy.storeTo "ports" (list $port) "direction" "to") -}}
{{- end -}}
{{- end -}}

{{- /* To the collector of traces, where there is one; names have to be resolved for it. Argument: root. */ -}}
{{- define "seedvr2.tracingRule" -}}
{{- with .Values.tracing.settings.endpoint -}}
{{- include "seedvr2.listedRule" (dict "peers" $.Values.networkPolicy.tracingTo "ports" (list (include "seedvr2.port" .)) "direction" "to") -}}
{{- end -}}
{{- end -}}

{{- /* A policy. Dict: root, component, ingress, egress (text of rules). */ -}}
{{- define "seedvr2.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "seedvr2.metadata" (dict "root" .root "component" .component "name" (printf "%s-%s" (include "seedvr2.fullname" .root) .component)) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "seedvr2.selector" (dict "root" .root "component" .component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress }}
  ingress:
    {{- trim . | nindent 4 }}
  {{- end }}
  {{- with .egress }}
  egress:
    {{- trim . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* Peers of a rule: pods with these labels. Argument: labels. */ -}}
{{- define "seedvr2.onlyPods" -}}
- podSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
{{- end -}}

{{- /* Groups of pods that a pool can have at a time, with those that an upgrade adds; empty: nobody knows. Dict: pool. */ -}}
{{- define "seedvr2.mostGroups" -}}
{{- $scaling := .pool.autoscaling -}}
{{- $most := ternary .pool.replicas (max (int $scaling.max) (int $scaling.fallbackReplicas)) (eq $scaling.type "none") -}}
{{- if not (or (kindIs "invalid" $most) (kindIs "string" .pool.maxSurge)) -}}
{{- add (int $most) (int .pool.maxSurge) -}}
{{- end -}}
{{- end -}}

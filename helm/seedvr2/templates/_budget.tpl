{{- /* A PodDisruptionBudget, where a component has one. Dict: root, component, pool, name, settings. */ -}}
{{- define "seedvr2.budget" -}}
{{- if .settings.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "seedvr2.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .settings.podDisruptionBudget.maxUnavailable }}
  # A pod that isn't ready does nobody a service; it shall not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "seedvr2.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

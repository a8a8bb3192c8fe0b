{{- /* A pod of `helm test`. Dict: root, name, image, command, env (a dict), mounts, volumes (text). */ -}}
{{- define "seedvr2.test" -}}
{{- $who := dict "root" .root "component" "test" "settings" dict "name" (printf "%s-test-%s" (include "seedvr2.fullname" .root) .name)
  "annotations" (dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded") -}}
apiVersion: v1
kind: Pod
metadata:
  {{- include "seedvr2.metadata" $who | nindent 2 }}
spec:
  {{- include "seedvr2.pod" (merge (dict "serviceAccount" "default") $who) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: test
      image: {{ .image }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      {{- with .env }}
      env:
        {{- include "seedvr2.env" (dict "all" . "settings" dict) | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .root.Values.tests.resources | nindent 8 }}
      securityContext:
        {{- include "seedvr2.containerSecurity" $who | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- with .mounts }}{{ trim . | nindent 8 }}{{ end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- with .volumes }}{{ trim . | nindent 4 }}{{ end }}
{{- end -}}

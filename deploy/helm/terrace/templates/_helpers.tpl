{{/* Names. Kubernetes allows 63 characters; 45 leave room for the longest suffix, "-scheduler-metrics". */}}
{{- define "terrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "terrace" .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-terrace" .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "terrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "terrace.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "terrace.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of this release; a component label beside it selects one part. Never changed: selectors are immutable. */}}
{{- define "terrace.selector" -}}
app.kubernetes.io/name: terrace
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "terrace.labels" -}}
{{ include "terrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The service needs no privilege at all: no root, no writable image, no Kubernetes token. */}}
{{- define "terrace.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "terrace.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "terrace.databaseEnv" -}}
- name: TERRACED_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secretName | quote }}
      key: {{ .Values.database.secretKey | quote }}
{{- end -}}

{{/* Spread the replicas of one component over nodes, but rather run together than not at all. */}}
{{- define "terrace.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "terrace.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The one place beside the state directory that a process may write to. */}}
{{- define "terrace.scratch" -}}
- name: scratch
  emptyDir:
    sizeLimit: 1Gi
{{- end -}}

{{/* A list of NetworkPolicy peers from the short form of values.yaml. */}}
{{- define "terrace.peers" -}}
{{- range . }}
{{- if .cidr }}
- ipBlock:
    cidr: {{ .cidr | quote }}
{{- else }}
- namespaceSelector:
    matchLabels:
      {{- toYaml (.namespaceLabels | default dict) | nindent 6 }}
  podSelector:
    matchLabels:
      {{- toYaml (.podLabels | default dict) | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

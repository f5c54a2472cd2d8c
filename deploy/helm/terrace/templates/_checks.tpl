{{/* What the schema cannot say because it compares two values. Each message names both. */}}
{{- define "terrace.checks" -}}
{{- if and (gt (int .Values.api.replicas) 1) (ne .Values.state.accessMode "ReadWriteMany") -}}
{{- fail (printf "api.replicas: %d replicas share the archives, so state.accessMode must be ReadWriteMany, got %s" (int .Values.api.replicas) .Values.state.accessMode) -}}
{{- end -}}
{{- if ge (int .Values.api.drainSeconds) (int .Values.api.terminationGraceSeconds) -}}
{{- fail (printf "api.drainSeconds: must be below api.terminationGraceSeconds (%d), got %d" (int .Values.api.terminationGraceSeconds) (int .Values.api.drainSeconds)) -}}
{{- end -}}
{{- end -}}

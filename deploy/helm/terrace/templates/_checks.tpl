{{/* What the schema cannot say because it compares two values. Each message names both. */}}
{{- define "terrace.checks" -}}
{{- if eq (int .Values.api.port) (int .Values.metrics.port) -}}
{{- fail (printf "metrics.port: must differ from api.port, both are %d" (int .Values.api.port)) -}}
{{- end -}}
{{- if ge (int .Values.api.drainSeconds) (int .Values.api.terminationGraceSeconds) -}}
{{- fail (printf "api.drainSeconds: must be below api.terminationGraceSeconds (%d), got %d" (int .Values.api.terminationGraceSeconds) (int .Values.api.drainSeconds)) -}}
{{- end -}}
{{- end -}}

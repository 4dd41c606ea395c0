{{- define "pomarium.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "pomarium.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains (include "pomarium.name" .) .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pomarium.name" .) | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pomarium.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "pomarium.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "pomarium.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pomarium.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pomarium.labels" -}}
{{ include "pomarium.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: pomarium
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pomarium.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* What the operator does at a site: the hub's own cluster or a member. */}}
{{- define "pomarium.siteRules" -}}
# Replicas are bare Pods, applied on the server's side.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# Cordons, the draining taint, and the annotation that makes a drain resumable.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch, patch]
# A namespace of a pool must exist, and kube-system's uid names the cluster.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
# Turns other people's evictions into drains.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.rbac.podProxy }}
# Engine metrics where the pod network cannot be reached.
- apiGroups: [""]
  resources: [pods/proxy]
  verbs: [get]
{{- end }}
{{- end }}

{{- define "pomarium.scaleRules" -}}
{{- with .Values.rbac.scaleTargets -}}
# Owners of servers: through /scale and nothing else.
{{- range . }}
- apiGroups: [{{ .apiGroup | quote }}]
  resources:
    {{- range .resources }}
    - {{ . }}/scale
    {{- end }}
  verbs: [get, update]
{{- end }}
{{- end }}
{{- end }}

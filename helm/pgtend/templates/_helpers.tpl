{{/* The release's full name: the release's own where that says pgtend already. */}}
{{- define "pgtend.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What lies outside the release's namespace carries its name, so that two installations do not collide. */}}
{{- define "pgtend.outsideName" -}}
{{- printf "%s:%s" (include "pgtend.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "pgtend.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pgtend.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pgtend.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pgtend.labels" -}}
{{ include "pgtend.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pgtend.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* Of the pods of backups; the operator puts the server's major in the place of {major}. */}}
{{- define "pgtend.toolsImage" -}}
{{- if .Values.tools.image -}}
{{ .Values.tools.image }}
{{- else -}}
{{- with .Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
pgtend/tools:{{ .Chart.AppVersion }}-pg{major}
{{- end -}}
{{- end -}}

{{/* What every process of ours is told: who it is, where it lives, what it watches (names apart by blanks). */}}
{{- define "pgtend.env" -}}
- name: PGTEND_INSTALLATION_ID
  value: {{ .Values.installationID | quote }}
- name: PGTEND_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: PGTEND_WATCH_NAMESPACES
  value: {{ .Values.watchNamespaces | uniq | sortAlpha | join " " | quote }}
- name: PGTEND_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: PGTEND_TOOLS_IMAGE
  value: {{ include "pgtend.toolsImage" . | quote }}
- name: PGTEND_TOOLS_MAJORS
  value: {{ .Values.tools.majors | join " " | quote }}
- name: PGTEND_REQUESTERS_CHECKED
  value: {{ include "pgtend.wide" (list . .Values.admissionPolicy.enabled) | default "false" | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "true" where an object of the whole cluster is wanted: asked for, or not decided in mode Cluster; else empty. */}}
{{- define "pgtend.wide" -}}
{{- $root := index . 0 -}}
{{- $asked := index . 1 -}}
{{- if kindIs "bool" $asked -}}
{{- if $asked }}true{{ end -}}
{{- else if eq $root.Values.mode "Cluster" -}}
true
{{- end -}}
{{- end -}}

{{- define "pgtend.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "pgtend.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where pods of ours may run. */}}
{{- define "pgtend.scheduling" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What the uninstall job needs: made before it, gone after it. */}}
{{- define "pgtend.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: "-10"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* What a container with the program gets, in the Deployment and in the CronJob. */}}
{{- define "pullpass.env" -}}
- name: PULLPASS_KUBERNETES_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- with include "pullpass.heapMiB" . }}
- name: NODE_OPTIONS
  value: --max-old-space-size={{ . }}
{{- end }}
{{- with .Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Settings, credentials and the CA of the environment. */}}
{{- define "pullpass.mounts" -}}
- name: config
  mountPath: /etc/pullpass/config
  readOnly: true
- name: credentials
  mountPath: /etc/pullpass/credentials
  readOnly: true
{{- if include "pullpass.hasEnvironmentCa" . }}
- name: environment-ca
  mountPath: /etc/pullpass/environment-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "pullpass.volumes" -}}
- name: config
  configMap:
    name: {{ include "pullpass.name" . }}
- name: credentials
  secret:
    secretName: {{ include "pullpass.credentialsSecret" . }}
{{- if include "pullpass.hasEnvironmentCa" . }}
- name: environment-ca
  {{- with .Values.environmentCa }}
  {{- if .secret }}
  secret:
    secretName: {{ .secret }}
    items:
      - key: {{ .key }}
        path: ca.crt
  {{- else if .configMap }}
  configMap:
    name: {{ .configMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
  {{- else }}
  configMap:
    name: {{ include "pullpass.name" $ }}-environment-ca
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Name of the CronJob; 52 characters at most, because Jobs get a suffix. */}}
{{- define "pullpass.cleanUpName" -}}
{{- printf "%s-clean-up" (include "pullpass.name" . | trunc 43 | trimSuffix "-") -}}
{{- end }}

{{/* The label of clean-up pods. Not that of the Deployment, so that the Service does not select them. */}}
{{- define "pullpass.cleanUpApp" -}}
{{- printf "%s-clean-up" .Chart.Name -}}
{{- end }}

{{/* Name of the objects in the release namespace. */}}
{{- define "pullpass.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Name of cluster-scoped objects. It contains the namespace, so that releases with the same name do not conflict. */}}
{{- define "pullpass.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "pullpass.name" .) -}}
{{- end }}

{{/* The same for kinds whose names are DNS names. A namespace contains no dot, so names cannot conflict. */}}
{{- define "pullpass.policyName" -}}
{{- printf "%s.%s" .Release.Namespace (include "pullpass.name" .) -}}
{{- end }}

{{/*
Whether the chart creates the ValidatingAdmissionPolicy; empty: no. It uses the Kubernetes version, because without a
cluster (helm template) Helm does not know the APIs. `on` and `off` without quotes are booleans in YAML. After an
upgrade with --reuse-values from a chart without this value, it is not set.
*/}}
{{- define "pullpass.secretsPolicy" -}}
{{- $asked := ternary "auto" (toString .Values.secretsPolicy) (kindIs "invalid" .Values.secretsPolicy) -}}
{{- if or (has $asked (list "on" "true")) (and (eq $asked "auto") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}

{{/* The label of the pull secrets that pullpass manages. */}}
{{- define "pullpass.pullSecretLabels" -}}
pullpass.io/pull-secret: "true"
{{- end }}

{{- define "pullpass.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pullpass.labels" -}}
{{ include "pullpass.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "pullpass.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* The registry as in image references. */}}
{{- define "pullpass.registryHost" -}}
{{- default (printf "registry.%s" .Values.domain) .Values.registry.host -}}
{{- end }}

{{- define "pullpass.credentialsSecret" -}}
{{- default (printf "%s-credentials" (include "pullpass.name" .)) .Values.credentials.existingSecret -}}
{{- end }}

{{/* The Secret with tls.crt and tls.key, if certificates are mounted as files. */}}
{{- define "pullpass.certificateSecret" -}}
{{- default (printf "%s-tls" (include "pullpass.name" .)) .Values.certificate.existingSecret -}}
{{- end }}

{{/* Host of webhook.url without its port; empty if there is no URL. */}}
{{- define "pullpass.urlHost" -}}
{{- if .Values.webhook.url -}}
{{- regexReplaceAll ":[0-9]+$" (urlParse .Values.webhook.url).host "" -}}
{{- end -}}
{{- end }}

{{/* Names in the certificate, as a YAML list. Go requires subject alternative names. */}}
{{- define "pullpass.certificateNames" -}}
{{- $service := printf "%s.%s.svc" (include "pullpass.name" .) .Release.Namespace -}}
{{- list $service (include "pullpass.urlHost" .) | compact | toYaml -}}
{{- end }}

{{/* Names by which the API server calls the webhook. A certificate that others provide must contain them. */}}
{{- define "pullpass.calledNames" -}}
{{- $service := printf "%s.%s.svc" (include "pullpass.name" .) .Release.Namespace -}}
{{- list (default $service (include "pullpass.urlHost" .)) | toYaml -}}
{{- end }}

{{/* Port of a URL. */}}
{{- define "pullpass.urlPort" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port -}}
{{- end }}

{{/* Security context of all containers: Pod Security Standard "restricted", and a read-only root. */}}
{{- define "pullpass.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{- define "pullpass.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
The memory limit in bytes; empty if there is no limit. Units are those of Kubernetes quantities. Helm can print a large
plain number as 2.68435456e+08.
*/}}
{{- define "pullpass.memoryLimit" -}}
{{- $limit := dig "limits" "memory" "" (default dict .Values.resources) | toString -}}
{{- if $limit -}}
{{- $number := regexFind "^[0-9.]+(e[+]?[0-9]+)?" $limit -}}
{{- $units := dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (float64 $number) (dig (trimPrefix $number $limit) 1 $units) | int64 -}}
{{- end -}}
{{- end }}

{{/* Three quarters of the memory limit in MiB, for the old space of Node; empty if there is no limit. */}}
{{- define "pullpass.heapMiB" -}}
{{- with include "pullpass.memoryLimit" . -}}
{{- div (mul (int64 .) 3) 4194304 -}}
{{- end -}}
{{- end }}

{{/* The namespace that `helm test` creates for its dry-run pod, and deletes. */}}
{{- define "pullpass.selftestNamespace" -}}
{{- printf "%s-selftest" (include "pullpass.name" .) -}}
{{- end }}

{{/* A container with the pullpass image, for one task. */}}
{{- define "pullpass.taskContainer" -}}
image: {{ include "pullpass.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests:
    cpu: 50m
    memory: 128Mi
  limits:
    memory: 128Mi
securityContext:
  {{- include "pullpass.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* The pod of a task. It runs on the same nodes as the Deployment. */}}
{{- define "pullpass.taskPod" -}}
restartPolicy: Never
enableServiceLinks: false
securityContext:
  {{- include "pullpass.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
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
{{- end }}

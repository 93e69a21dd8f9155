{{/* Name of what lives in the release namespace. */}}
{{- define "pullpass.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Name of what belongs to no namespace: two releases of one name in two namespaces do not meet. */}}
{{- define "pullpass.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "pullpass.name" .) -}}
{{- end }}

{{/* A policy's name is a DNS name. A namespace has no dot in its name, so two releases never meet. */}}
{{- define "pullpass.secretsPolicyName" -}}
{{- printf "%s.%s.secrets.pullpass.io" .Release.Namespace (include "pullpass.name" .) -}}
{{- end }}

{{/*
Whether the policy on pullpass's own Secrets is rendered. `helm template` knows no APIs of the cluster, only a
version. YAML 1.1 reads on and off as true and false.
*/}}
{{- define "pullpass.hasSecretsPolicy" -}}
{{- $wanted := toString .Values.secretsPolicy -}}
{{- if or (has $wanted (list "on" "true")) (and (eq $wanted "auto") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}

{{/* The label of every Secret that pullpass writes into a namespace. */}}
{{- define "pullpass.ownLabel" -}}
key: app.kubernetes.io/managed-by
value: pullpass
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

{{/* The registry as image references name it. */}}
{{- define "pullpass.registryHost" -}}
{{- default (printf "registry.%s" .Values.domain) .Values.registry.host -}}
{{- end }}

{{- define "pullpass.credentialsSecret" -}}
{{- default (printf "%s-credentials" (include "pullpass.name" .)) .Values.credentials.existingSecret -}}
{{- end }}

{{/* The Secret with tls.crt and tls.key, where certificates come as files. */}}
{{- define "pullpass.certificateSecret" -}}
{{- default (printf "%s-tls" (include "pullpass.name" .)) .Values.certificate.existingSecret -}}
{{- end }}

{{/* Host of webhook.url, without port; empty without a URL. */}}
{{- define "pullpass.urlHost" -}}
{{- if .Values.webhook.url -}}
{{- regexReplaceAll ":[0-9]+$" (urlParse .Values.webhook.url).host "" -}}
{{- end -}}
{{- end }}

{{/* Names the certificate is made for, a YAML list: Go asks for a subject alternative name. */}}
{{- define "pullpass.certificateNames" -}}
{{- $service := printf "%s.%s.svc" (include "pullpass.name" .) .Release.Namespace -}}
{{- list $service (include "pullpass.urlHost" .) | compact | toYaml -}}
{{- end }}

{{/* What every container of ours is allowed: Pod Security Standard "restricted", and no writable root. */}}
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

{{/* The memory limit in MiB; empty without a limit. Units as in values.schema.json. */}}
{{- define "pullpass.memoryMiB" -}}
{{- $limit := dig "limits" "memory" "" (default dict .Values.resources) | toString -}}
{{- $number := regexFind "^[0-9]+" $limit | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $limit "" -}}
{{- $bytes := dict "Gi" 1073741824 "Mi" 1048576 "Ki" 1024 "G" 1000000000 "M" 1000000 "k" 1000 "" 1 -}}
{{- if $limit -}}
{{- div (mul $number (get $bytes $unit)) 1048576 -}}
{{- end -}}
{{- end }}

{{/* Three quarters of the memory limit, in MiB, for Node's old space; empty without a limit. */}}
{{- define "pullpass.heapMiB" -}}
{{- with include "pullpass.memoryMiB" . -}}
{{- div (mul (int64 .) 3) 4 -}}
{{- end -}}
{{- end }}

{{/* The port of a URL or of host:port; 443 where it has none. */}}
{{- define "pullpass.portOf" -}}
{{- default ":443" (regexFind ":[0-9]+$" (regexReplaceAll "^(https?://[^/]*).*$" . "${1}")) | trimPrefix ":" -}}
{{- end }}

{{/* Ports that pullpass calls: of the API server, of the environment or the proxy in front of it, and others. */}}
{{- define "pullpass.egressPorts" -}}
{{- with .Values -}}
{{- $environment := list .proxy.https .bluemix.api .bluemix.iam .registry.url .registry.host | compact -}}
{{- $ports := list "443" -}}
{{- range $environment -}}
{{- $ports = append $ports (include "pullpass.portOf" .) -}}
{{- end -}}
{{- range concat .networkPolicy.apiServerPorts .networkPolicy.egressPorts -}}
{{- $ports = append $ports (int64 . | toString) -}}
{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end -}}
{{- end }}

{{/* The namespace that `helm test` makes for its dry-run pod, and removes. */}}
{{- define "pullpass.selftestNamespace" -}}
{{- printf "%s-selftest" (include "pullpass.name" .) -}}
{{- end }}

{{/* A container of the program's own image, for one deed. */}}
{{- define "pullpass.deedContainer" -}}
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

{{/* Where the pods of a deed may run: as the Deployment's. */}}
{{- define "pullpass.deedPod" -}}
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

{{/*
What values.schema.json cannot say: values that need each other, or exclude each other, and what is in
the cluster already. Every problem at once, a sentence each.
*/}}
{{- define "pullpass.check" -}}
{{- $problems := concat
  (include "pullpass.check.environment" . | fromYamlArray)
  (include "pullpass.check.credentials" . | fromYamlArray)
  (include "pullpass.check.certificate" . | fromYamlArray)
  (include "pullpass.check.times" . | fromYamlArray)
  (include "pullpass.check.network" . | fromYamlArray)
  (include "pullpass.check.image" . | fromYamlArray)
  (include "pullpass.check.otherReleases" . | fromYamlArray)
-}}
{{- if $problems -}}
{{- fail (printf "\n\npullpass cannot be installed like this:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end }}

{{- define "pullpass.check.environment" -}}
{{- with .Values }}
{{- if and (not .domain) (not (and .bluemix.api .registry.host)) }}
- domain is required, or else both bluemix.api and registry.host.
{{- end }}
{{- if not .bluemix.organization }}
- "bluemix.organization is required: the name or GUID of the organization to mint tokens for."
{{- end }}
{{- if not .image.repository }}
- "image.repository is required: where you pushed the image that `docker build .` made."
{{- end }}
{{- if and (eq .bluemix.login "iam") (not .bluemix.iam) }}
- "bluemix.login is iam, so bluemix.iam is required: the URL of IAM."
{{- end }}
{{- if and (ne .bluemix.login "iam") .bluemix.iam }}
- "bluemix.iam is set, but bluemix.login is uaa: set bluemix.login to iam, or leave bluemix.iam out."
{{- end }}
{{- if gt (len (compact (list .environmentCa.pem .environmentCa.configMap .environmentCa.secret))) 1 }}
- "environmentCa takes one of pem, configMap and secret, not several."
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.image" -}}
{{- $host := include "pullpass.registryHost" . }}
{{- with include "pullpass.memoryLimit" . }}
{{- if lt (int64 .) 134217728 }}
- resources.limits.memory ({{ $.Values.resources.limits.memory }}) is below 128Mi, the least that pullpass needs to run.
{{- end }}
{{- end }}
{{- if and (hasPrefix (printf "%s/" $host) .Values.image.repository) (not .Values.imagePullSecrets) }}
- "image.repository is in {{ $host }}, the registry that pullpass serves, so imagePullSecrets is required: pullpass cannot pull its own image with a Secret that it has yet to make."
{{- end }}
{{- if has (regexReplaceAll ":[0-9]+$" $host "") (list "docker.io" "index.docker.io" "registry-1.docker.io") }}
- "registry.host is {{ $host }}, but Docker Hub cannot be served: its images are named in many ways, also without a host."
{{- end }}
{{- end }}

{{- define "pullpass.check.credentials" -}}
{{- with .Values.credentials }}
{{- $user := or .username .password }}
{{- $ways := len (compact (list .existingSecret .apiKey $user)) }}
{{- if eq $ways 0 }}
- "credentials are required: credentials.existingSecret, or credentials.apiKey, or credentials.username with credentials.password."
{{- else if gt $ways 1 }}
- "credentials takes one of existingSecret, apiKey, and username with password, not several."
{{- else if and $user (not (and .username .password)) }}
- "credentials.username and credentials.password belong together: one of them is missing."
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.certificate" -}}
{{- $mode := .Values.certificate.mode }}
{{- with .Values.certificate }}
{{- if eq $mode "existing-secret" }}
{{- if not .existingSecret }}
- "certificate.mode is existing-secret, so certificate.existingSecret is required."
{{- end }}
{{- if and (not .caBundle) (not $.Values.webhook.url) }}
- "certificate.mode is existing-secret, so certificate.caBundle is required: no public CA signs the name of a Service."
{{- end }}
{{- else }}
{{- if .existingSecret }}
- certificate.existingSecret is of use only with certificate.mode existing-secret, and the mode is {{ $mode }}.
{{- end }}
{{- if .caBundle }}
- certificate.caBundle is of use only with certificate.mode existing-secret, and in mode {{ $mode }} it is kept for you.
{{- end }}
{{- end }}
{{- if and .issuerRef (ne $mode "cert-manager") }}
- certificate.issuerRef is of use only with certificate.mode cert-manager, and the mode is {{ $mode }}.
{{- end }}
{{- if lt (int64 .caSeconds) (mul 4 (int64 .leafSeconds)) }}
- certificate.caSeconds ({{ int64 .caSeconds }}) must be at least four times certificate.leafSeconds ({{ int64 .leafSeconds }}), so that a CA outlives what it signed.
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.times" -}}
{{- $timeoutMs := mul 1000 (int64 .Values.webhook.timeoutSeconds) }}
{{- $waitMs := int64 .Values.admission.waitMs }}
{{- if gt (add $waitMs 1000) $timeoutMs }}
- admission.waitMs ({{ $waitMs }}) must be at least a second shorter than webhook.timeoutSeconds ({{ int64 .Values.webhook.timeoutSeconds }}), so that the answer is in time.
{{- end }}
{{- with .Values.controller }}
{{- if and .rotateAfterSeconds (ge (int64 .rotateGraceSeconds) (int64 .rotateAfterSeconds)) }}
- controller.rotateGraceSeconds ({{ int64 .rotateGraceSeconds }}) must be shorter than controller.rotateAfterSeconds ({{ int64 .rotateAfterSeconds }}), or replaced tokens pile up.
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.network" -}}
{{- with .Values }}
{{- if eq (int64 .webhook.port) (int64 .operations.port) }}
- webhook.port and operations.port are both {{ int64 .webhook.port }}, but must differ.
{{- end }}
{{- if and .networkPolicy.enabled .monitor.enabled (not .networkPolicy.metricsFrom) }}
- monitor.enabled needs networkPolicy.metricsFrom, or Prometheus cannot reach the metrics.
{{- end }}
{{- if and .hostNetwork .networkPolicy.enabled }}
- "networkPolicy.enabled has no effect with hostNetwork: policies do not hold for pods in the nodes' network."
{{- end }}
{{- end }}
{{- end }}

{{/*
Two releases are possible for two environments, and only so: what they would both write to is refused.
`lookup` finds nothing without a cluster (helm template, GitOps renderers).
*/}}
{{- define "pullpass.check.otherReleases" -}}
{{- $host := include "pullpass.registryHost" . }}
{{- range (lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" "").items }}
{{- $annotations := default dict .metadata.annotations }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- $release := get $annotations "meta.helm.sh/release-name" }}
{{- $other := or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace) }}
{{- $owner := ternary (printf "the release %s in namespace %s" $release $namespace) "somebody else" (ne $release "") }}
{{- if and $other (eq .metadata.name $.Values.webhook.configurationName) }}
- The MutatingWebhookConfiguration {{ .metadata.name }} belongs to {{ $owner }}; only with another webhook.configurationName, pullSecret.name and environment can a second release run in this cluster.
{{- else if and $other (eq (get $annotations "pullpass.io/registry") $host) }}
- The registry {{ $host }} is served by {{ $owner }} already (MutatingWebhookConfiguration {{ .metadata.name }}), and both would mint for the same namespaces.
{{- else if and $other (eq (get $annotations "pullpass.io/pull-secret") $.Values.pullSecret.name) }}
- The pull Secret {{ $.Values.pullSecret.name }} is kept by {{ $owner }} already (MutatingWebhookConfiguration {{ .metadata.name }}), so set another pullSecret.name.
{{- end }}
{{- end }}
{{- end }}

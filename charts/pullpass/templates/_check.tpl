{{/*
Checks that values.schema.json cannot express: values that need or exclude each other, and conflicts with objects in
the cluster. All problems are reported together, one sentence each.
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
{{- fail (printf "\n\npullpass cannot be installed with these values:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end }}

{{- define "pullpass.check.environment" -}}
{{- with .Values }}
{{- if and (not .domain) (not (and .bluemix.api .registry.host)) }}
- domain is required, unless bluemix.api and registry.host are both set.
{{- end }}
{{- if not .bluemix.organization }}
- "bluemix.organization is required: the name or GUID of the organization to mint tokens for."
{{- end }}
{{- if not .image.repository }}
- "image.repository is required: build the image with `docker build .`, push it, and set its name."
{{- end }}
{{- if and (eq .bluemix.login "iam") (not .bluemix.iam) }}
- "bluemix.login is iam, so bluemix.iam is required: the URL of IAM."
{{- end }}
{{- if and (ne .bluemix.login "iam") .bluemix.iam }}
- "bluemix.iam is set, but bluemix.login is uaa: set bluemix.login to iam, or remove bluemix.iam."
{{- end }}
{{- if gt (len (compact (list .environmentCa.pem .environmentCa.configMap .environmentCa.secret))) 1 }}
- "set only one of environmentCa.pem, environmentCa.configMap and environmentCa.secret."
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.image" -}}
{{- $host := include "pullpass.registryHost" . }}
{{- with include "pullpass.memoryLimit" . }}
{{- if lt (int64 .) 134217728 }}
- resources.limits.memory ({{ $.Values.resources.limits.memory }}) is below 128Mi, the minimum for pullpass.
{{- end }}
{{- end }}
{{- if and (hasPrefix (printf "%s/" $host) .Values.image.repository) (not .Values.imagePullSecrets) }}
- "image.repository is in {{ $host }}, the registry that pullpass serves, so imagePullSecrets is required: pullpass cannot use its own pull secret for its own image."
{{- end }}
{{- if has (regexReplaceAll ":[0-9]+$" $host "") (list "docker.io" "index.docker.io" "registry-1.docker.io") }}
- "registry.host is {{ $host }}, but Docker Hub is not supported: its images have several names, some without a host."
{{- end }}
{{- end }}

{{- define "pullpass.check.credentials" -}}
{{- with .Values.credentials }}
{{- $user := or .username .password }}
{{- $ways := len (compact (list .existingSecret .apiKey $user)) }}
{{- if eq $ways 0 }}
- "credentials are required: credentials.existingSecret, or credentials.apiKey, or credentials.username with credentials.password."
{{- else if gt $ways 1 }}
- "set only one of credentials.existingSecret, credentials.apiKey, and credentials.username with credentials.password."
{{- else if and $user (not (and .username .password)) }}
- "credentials.username and credentials.password must both be set."
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
- certificate.existingSecret is only for certificate.mode existing-secret, but the mode is {{ $mode }}.
{{- end }}
{{- if .caBundle }}
- certificate.caBundle is only for certificate.mode existing-secret; in mode {{ $mode }}, it is set automatically.
{{- end }}
{{- end }}
{{- if and .issuerRef (ne $mode "cert-manager") }}
- certificate.issuerRef is only for certificate.mode cert-manager, but the mode is {{ $mode }}.
{{- end }}
{{- if lt (int64 .caSeconds) (mul 4 (int64 .leafSeconds)) }}
- certificate.caSeconds ({{ int64 .caSeconds }}) must be at least four times certificate.leafSeconds ({{ int64 .leafSeconds }}), so that the CA is valid longer than the certificates it signed.
{{- end }}
{{- end }}
{{- end }}

{{- define "pullpass.check.times" -}}
{{- $timeoutMs := mul 1000 (int64 .Values.webhook.timeoutSeconds) }}
{{- $waitMs := int64 .Values.admission.waitMs }}
{{- if gt (add $waitMs 1000) $timeoutMs }}
- admission.waitMs ({{ $waitMs }}) must be at least a second shorter than webhook.timeoutSeconds ({{ int64 .Values.webhook.timeoutSeconds }}), so that the answer arrives in time.
{{- end }}
{{- with .Values.controller }}
{{- if and .rotateAfterSeconds (ge (int64 .rotateGraceSeconds) (int64 .rotateAfterSeconds)) }}
- controller.rotateGraceSeconds ({{ int64 .rotateGraceSeconds }}) must be shorter than controller.rotateAfterSeconds ({{ int64 .rotateAfterSeconds }}); otherwise replaced tokens accumulate.
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
- "networkPolicy.enabled has no effect with hostNetwork: policies do not apply to pods in the network of the nodes."
{{- end }}
{{- end }}
{{- end }}

{{/*
A cluster can have two releases only for two environments. If both would write the same object, the second one is
refused. Without a cluster, `lookup` finds nothing (helm template, GitOps renderers).
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
- The MutatingWebhookConfiguration {{ .metadata.name }} belongs to {{ $owner }}. A second release in this cluster needs another webhook.configurationName, pullSecret.name and environment.
{{- else if and $other (eq (get $annotations "pullpass.io/registry") $host) }}
- The registry {{ $host }} is served by {{ $owner }} already (MutatingWebhookConfiguration {{ .metadata.name }}), and both would mint tokens for the same namespaces.
{{- else if and $other (eq (get $annotations "pullpass.io/pull-secret") $.Values.pullSecret.name) }}
- The pull secret {{ $.Values.pullSecret.name }} is managed by {{ $owner }} already (MutatingWebhookConfiguration {{ .metadata.name }}). Set another pullSecret.name.
{{- end }}
{{- end }}
{{- end }}

{{/*
The settings file, from the values with the same names. Empty values are omitted, so that the defaults of the program
apply.
*/}}
{{- define "pullpass.config" -}}
{{- $v := .Values -}}
{{- $bluemix := dict "organization" $v.bluemix.organization "api" $v.bluemix.api "login" $v.bluemix.login "iam" $v.bluemix.iam "account" $v.bluemix.account "namespaceOrganizations" $v.bluemix.namespaceOrganizations "selectableOrganizations" $v.bluemix.selectableOrganizations "timeoutMs" $v.bluemix.timeoutMs "credentialsDirectory" "/etc/pullpass/credentials" -}}
{{- if include "pullpass.hasEnvironmentCa" . -}}
{{- $_ := set $bluemix "caFile" "/etc/pullpass/environment-ca/ca.crt" -}}
{{- end -}}
{{- $certificate := dict "mode" "files" "names" (include "pullpass.calledNames" . | fromYamlArray) "directory" "/etc/pullpass/tls" "webhookConfiguration" $v.webhook.configurationName -}}
{{- if eq $v.certificate.mode "self-managed" -}}
{{- $certificate = dict "mode" "self-managed" "names" (include "pullpass.certificateNames" . | fromYamlArray) "secretName" (printf "%s-ca" (include "pullpass.name" .)) "webhookConfiguration" $v.webhook.configurationName "leafSeconds" $v.certificate.leafSeconds "caSeconds" $v.certificate.caSeconds -}}
{{- end -}}
{{- $sections := dict
  "registry" $v.registry
  "bluemix" $bluemix
  "pullSecret" $v.pullSecret
  "admission" (dict "port" $v.webhook.port "waitMs" $v.admission.waitMs)
  "operations" $v.operations
  "controller" $v.controller
  "certificate" $certificate
  "kubernetes" $v.kubernetes
  "leader" (dict "leaseName" (include "pullpass.name" .))
  "shutdown" $v.shutdown
  "log" $v.log
-}}
{{- $config := dict -}}
{{- if $v.domain -}}
{{- $_ := set $config "domain" $v.domain -}}
{{- end -}}
{{- with $v.clusterName -}}
{{- $_ := set $config "clusterName" . -}}
{{- end -}}
{{- range $section, $settings := $sections -}}
{{- $kept := dict -}}
{{- range $name, $value := $settings -}}
{{- if or $value (kindIs "float64" $value) (kindIs "int64" $value) -}}
{{- $_ := set $kept $name $value -}}
{{- end -}}
{{- end -}}
{{- if $kept -}}
{{- $_ := set $config $section $kept -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "pullpass.hasEnvironmentCa" -}}
{{- with .Values.environmentCa -}}
{{- if or .pem .configMap .secret -}}true{{- end -}}
{{- end -}}
{{- end }}

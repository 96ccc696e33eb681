{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "limpid.fullname" -}}
{{- if contains "limpid" .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-limpid" .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "limpid.selector" -}}
app.kubernetes.io/name: limpid
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "limpid.gatewaySelector" -}}
app.kubernetes.io/name: limpid-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "limpid.labels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "limpid.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "limpid.fullname" .) -}}
{{- end -}}

{{- define "limpid.image" -}}
{{- $default := ternary "limpid/server-cuda" "limpid/server-cpu" .Values.gpu.enabled -}}
{{- printf "%s:%s" (.Values.image.repository | default $default) (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* The server's configuration: what the chart decides, and config over it. The
gateway, a pod with a private address, says whose calls it passes on. */}}
{{- define "limpid.config" -}}
{{- $made := dict
  "model_repository" "/var/lib/limpid/models"
  "listen" "0.0.0.0:50051"
  "health" "0.0.0.0:50052"
  "metrics" "0.0.0.0:9464"
  "device" (ternary "cuda" "cpu" .Values.gpu.enabled)
  "serving_window_seconds" 3
  "drain_seconds" 14
  "connections" (dict "trusted_proxies" (ternary
    (list "10.0.0.0/8" "100.64.0.0/10" "172.16.0.0/12" "192.168.0.0/16" "fc00::/7")
    list .Values.gateway.enabled))
  "limits" (dict "max_request_bytes" 16777216 "max_unary_reply_bytes" 67108864
    "max_request_seconds" 600 "max_queue_size" 256) -}}
{{- if .Values.tls.secretName -}}
{{- $tls := dict "certificate_file" "/etc/limpid/tls/tls.crt" "key_file" "/etc/limpid/tls/tls.key" -}}
{{- if .Values.tls.clientCertificates -}}
{{- $_ := set $tls "client_ca_file" "/etc/limpid/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $made "tls" $tls -}}
{{- else -}}
{{- $_ := set $made "allow_plaintext" true -}}
{{- end -}}
{{- if .Values.tokens.secretName -}}
{{- $_ := set $made "token_file" "/etc/limpid/tokens/tokens" -}}
{{- end -}}
{{- mergeOverwrite $made (deepCopy .Values.config) | toPrettyJson -}}
{{- end -}}

{{/* envoy.yaml with this release's servers and the options that it takes. */}}
{{- define "limpid.envoy" -}}
{{- $host := printf "%s-servers" (include "limpid.fullname" .) -}}
{{- $config := .Files.Get "files/envoy.yaml" -}}
{{- $options := list -}}
{{- range .Values.gateway.options -}}
{{- $options = append $options ($.Files.Get (printf "files/options/%s.yaml" .) | replace "filename: " "filename: /etc/limpid/edge/") -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $options = append $options (.Files.Get "files/options/upstream-tls.yaml" | replace "upstream-ca.crt" "/etc/limpid/tls/ca.crt" | replace "sni: limpid" (printf "sni: %s" $host) | replace "exact: limpid" (printf "exact: %s" $host)) -}}
{{- end -}}
{{- range $options -}}
{{- $marker := printf "# option: %s\n" (regexFind "option of [a-z-]+" . | trimPrefix "option of ") -}}
{{- $config = $config | replace $marker (print $marker .) -}}
{{- end -}}
{{- $config | replace "address: limpid, port_value: 50051" (printf "address: %s, port_value: 50051" $host) -}}
{{- end -}}

{{- define "limpid.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "limpid.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

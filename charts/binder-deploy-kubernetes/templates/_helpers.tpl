{{/* The namespace of the instances. */}}
{{- define "binder.instances" -}}
{{- $namespace := .Values.instances.namespace | default (printf "%s-instances" .Release.Namespace) -}}
{{- if eq $namespace .Release.Namespace -}}
{{- fail "instances.namespace must not be the namespace of the release: quota, pod security and network policy apply to all that is in it" -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{/* Labels of all objects, beside the name and the component. */}}
{{- define "binder.labels" -}}
app.kubernetes.io/part-of: binder
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The image of the service. */}}
{{- define "binder.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{/* The public host and the instances' wildcard host, without their ports. */}}
{{- define "binder.publicHost" -}}
{{- regexReplaceAll ":[0-9]+$" .Values.publicHost "" -}}
{{- end -}}
{{- define "binder.instanceHosts" -}}
*.{{ regexReplaceAll ":[0-9]+$" .Values.instanceDomain "" }}
{{- end -}}

{{/* The type of the proxy's Service. */}}
{{- define "binder.proxyServiceType" -}}
{{- .Values.service.proxy.type | default (ternary "ClusterIP" "LoadBalancer" (or .Values.ingress.enabled .Values.gateway.enabled)) -}}
{{- end -}}

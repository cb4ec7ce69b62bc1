{{- define "qkscope.name" -}}
{{- printf "%s-%s" .root.Release.Name .class | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* A class with classDefaults where it says nothing; `resources` are taken whole.
Helm's own merge would take false and 0 for nothing. */ -}}
{{- define "qkscope.class" -}}
{{- $out := deepCopy .root.Values.classDefaults -}}
{{- range $key, $value := index .root.Values.classes .class -}}
{{- if and (kindIs "map" $value) (hasKey $out $key) (ne $key "resources") -}}
{{- range $inner, $one := $value -}}
{{- $_ := set (index $out $key) $inner $one -}}
{{- end -}}
{{- else -}}
{{- $_ := set $out $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{- /* Amounts as text: older API servers refuse numbers in a server-side apply. */ -}}
{{- define "qkscope.quantities" -}}
{{- $out := dict -}}
{{- range $name, $amount := . -}}
{{- $_ := set $out $name (toString $amount) -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{- define "qkscope.selector" -}}
app.kubernetes.io/name: qkscope
app.kubernetes.io/instance: {{ .root.Release.Name }}
qkscope.io/class: {{ .class }}
{{- end -}}

{{- define "qkscope.labels" -}}
{{ include "qkscope.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- /* The server's configuration, a text proto. */ -}}
{{- define "qkscope.config" -}}
listen: "0.0.0.0:{{ .root.Values.service.grpcPort }}"
metrics_listen: "0.0.0.0:{{ .root.Values.service.metricsPort }}"
{{ if eq .root.Values.exposure "behindProxy" -}}
behind_proxy: true
{{- else -}}
allow_anonymous_network: true
{{- end }}
shutdown_grace_s: {{ .root.Values.shutdownGraceSeconds }}
{{- range .values.models }}
models {
  name: {{ .name | quote }}
  path: {{ printf "/models/%s" .path | quote }}
  {{- with .compute }}
  compute: {{ . | quote }}
  {{- end }}
  {{- with .sha256 }}
  sha256: {{ . | quote }}
  {{- end }}
}
{{- end }}
{{- if .values.gpu.count }}
backend: "cuda"
{{- else }}
backend: "cpu"
{{- end }}
{{- if .root.Values.spool.enabled }}
spool { directory: "/spool/results" }
{{- end }}
{{- if .root.Values.usersSecret }}
users_file: "/etc/qkscope/users/users.conf"
{{- end }}
{{- if .root.Values.tls.secret }}
tls {
  certificate_file: "/etc/qkscope/tls/tls.crt"
  key_file: "/etc/qkscope/tls/tls.key"
}
{{- end }}
{{- with .values.config }}
{{ . }}
{{- end }}
{{- end -}}

{{- /* Kubernetes runs this in the container: exit 0 while the server serves. */ -}}
{{- define "qkscope.health" -}}
exec:
  command:
    - qkctl
    - health
    - --server=127.0.0.1:{{ .Values.service.grpcPort }}
    - --timeout=3
    {{- if .Values.tls.secret }}
    - --tls-ca=/etc/qkscope/tls/tls.crt
    - --tls-server-name={{ required "tls.serverName: name a DNS name of the certificate in tls.secret" .Values.tls.serverName }}
    {{- end }}
{{- end -}}

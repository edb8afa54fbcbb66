package main

import "slices"

// What stands in templates for the names of namespaces, and of what is named after them.
const (
	release   = `{{ .Release.Namespace }}`
	instances = `{{ include "binder.instances" . }}`
	headroom  = `{{ .Release.Namespace }}-headroom`
)

// templates lists the generated templates. What the kustomizations and components patch is
// an edit here, for the value that stands for the component.
func templates() []template {
	return slices.Concat(cluster(), controller(), ofInstances(), components())
}

func cluster() []template {
	return []template{
		{from: "base/cluster/admission.yaml", edits: []edit{
			{"binder-instances", instances},
			{"serviceaccount:binder:", "serviceaccount:" + release + ":"},
		}},
		{from: "base/cluster/priorityclasses.yaml", edits: []edit{
			{"  name: binder\n", "  name: " + release + "\n"},
			{"binder-instances", instances},
			{" (priorityClassName). Cluster autoscalers add nodes for pods of -10 and\n# above, so there is room below the instances for placeholders: ../../components/headroom.\n", " (priorityClassName).\n"},
		}},
	}
}

func controller() []template {
	return []template{
		{from: "base/controller/deployment.yaml", edits: deployment()},
		{from: "base/controller/networkpolicy.yaml", edits: []edit{
			{"binder-instances", instances},
			{`need a rule of their own:
    # - from:
    #     - ipBlock:
    #         cidr: 192.0.2.0/24
    #   ports:
    #     - port: api
`, "need a rule of their own.\n"},
			{"  egress:\n", list(".Values.networkPolicy.ingress", 4) + "  egress:\n"},
			{`    # Example for a template registry (--registry-url) on another port:
    # - to:
    #     - namespaceSelector:
    #         matchLabels:
    #           kubernetes.io/metadata.name: binder-registry
    #   ports:
    #     - port: 8082
`, ""},
			{"", list(".Values.networkPolicy.egress", 4)},
		}},
		{from: "base/controller/poddisruptionbudget.yaml"},
		{from: "base/controller/role.yaml", edits: []edit{{"", "    namespace: " + release + "\n"}}}, // of the subject
		{from: "base/controller/service-api.yaml", edits: append(service("api"),
			edit{"  type: ClusterIP\n", "  type: {{ .Values.service.api.type }}\n"},
			edit{"port: 8084", "port: {{ .Values.service.api.port }}"},
		)},
		{from: "base/controller/service-proxy.yaml", edits: append(service("proxy"),
			edit{"  type: LoadBalancer\n", "  type: {{ include \"binder.proxyServiceType\" . }}\n  {{- if ne (include \"binder.proxyServiceType\" .) \"ClusterIP\" }}\n"},
			edit{"externalTrafficPolicy: Local\n", "externalTrafficPolicy: Local\n  {{- end }}\n"},
			edit{"port: 80\n", "port: {{ .Values.service.proxy.port }}\n"},
		)},
		{from: "base/controller/serviceaccount.yaml"},
	}
}

func ofInstances() []template {
	return []template{
		{from: "base/instances/namespace.yaml", when: ".Values.instances.createNamespace", edits: []edit{{"binder-instances", instances}}},
		{from: "base/instances/networkpolicy.yaml", edits: []edit{
			{"metadata.name: binder\n", "metadata.name: " + release + "\n"},
			{`              # Add the public ranges of your own here: nodes, load balancers, the API
              # server's address, other services that trust their neighbours.
              # - your range
              #
`, except(`not (contains ":" .)`)},
			{`              # Add the public ranges of your own here, too.
              # - your range
`, except(`contains ":" .`)},
			{"", list(".Values.networkPolicy.instancesEgress", 4)},
		}},
		{from: "base/instances/quota.yaml", edits: quota()},
		{from: "base/instances/role.yaml", edits: []edit{{"    namespace: binder\n", "    namespace: " + release + "\n"}}},
		{from: "base/instances/template-jupyter.yaml", when: ".Values.jupyter.enabled", edits: []edit{
			{"  annotations:\n", "  annotations:\n    {{- with .Values.jupyter.poolSize }}\n    binder-project.org/pool-size: {{ . | quote }}\n    {{- end }}\n"},
			{"priorityClassName: binder-instances", "priorityClassName: " + instances + "{{ if .Values.headroom.enabled }}-preempting{{ end }}"},
			{"quay.io/jupyter/minimal-notebook:2026-08-10", "{{ .Values.jupyter.image }}"},
		}},
	}
}

func components() []template {
	return []template{
		{from: "components/cert-manager/certificate.yaml", when: ".Values.certManager.enabled", edits: []edit{
			{"binder-tls", "{{ .Values.tls.secretName }}"},
			{"ClusterIssuer", "{{ .Values.certManager.issuerKind }}"},
			{"name: letsencrypt", "name: {{ .Values.certManager.issuerName }}"},
			{"binder.example.org", "{{ include \"binder.publicHost\" . }}"},
		}},
		{from: "components/cert-manager-instance-hosts/certificate.yaml", when: "and .Values.certManager.enabled .Values.instanceDomain", edits: []edit{
			{"binder-instances-tls", "{{ .Values.tls.instancesSecretName }}"},
			{"ClusterIssuer", "{{ .Values.certManager.issuerKind }}"},
			{"name: letsencrypt", "name: {{ .Values.certManager.issuerName }}"},
			{`"*.users.example.org"`, "{{ include \"binder.instanceHosts\" . | quote }}"},
		}},
		{from: "components/gateway/gateway.yaml", when: ".Values.gateway.enabled", edits: []edit{
			{"example # kubectl get gatewayclasses", "{{ .Values.gateway.className }}"},
			{"binder.example.org", "{{ include \"binder.publicHost\" . }}"},
			{"binder-tls", "{{ .Values.tls.secretName }}"},
			{"port: 80\n", "port: {{ .Values.gateway.httpPort }}\n"},
			{"port: 443\n", "port: {{ .Values.gateway.httpsPort }}\n"},
			{"", ifDomain(`    - name: https-instances
      protocol: HTTPS
      port: {{ .Values.gateway.httpsPort }}
      hostname: {{ include "binder.instanceHosts" . | quote }}
      tls:
        certificateRefs:
          - name: {{ .Values.tls.instancesSecretName }}
`)},
		}},
		{from: "components/gateway/httproutes.yaml", when: ".Values.gateway.enabled", edits: []edit{
			{"    - binder.example.org\n", "    - {{ include \"binder.publicHost\" . }}\n" + ifDomain("    - {{ include \"binder.instanceHosts\" . | quote }}\n")},
			{"      sectionName: https\n", "      sectionName: https\n" + ifDomain("    - name: binder-proxy\n      sectionName: https-instances\n")},
			{"port: 80\n", "port: {{ .Values.service.proxy.port }}\n"},
		}},
		{from: "components/headroom/deployment.yaml", when: ".Values.headroom.enabled", edits: placeholders()},
		{from: "components/headroom/namespace.yaml", when: ".Values.headroom.enabled", edits: []edit{{"  name: binder-headroom\n", "  name: " + headroom + "\n"}}},
		{from: "components/headroom/networkpolicy.yaml", when: ".Values.headroom.enabled"},
		{from: "components/headroom/priorityclasses.yaml", when: ".Values.headroom.enabled", edits: []edit{
			{"  name: binder-headroom\n", "  name: " + headroom + "\n"},
			{"binder-instances-preempting", instances + "-preempting"},
		}},
		{from: "components/horizontal-pod-autoscaler/horizontalpodautoscaler.yaml", when: ".Values.autoscaling.enabled", edits: autoscaler()},
		{from: "components/ingress/ingress.yaml", when: ".Values.ingress.enabled", edits: ingress()},
		{from: "components/monitoring/podmonitor.yaml", when: ".Values.monitoring.enabled", edits: monitoring()},
		{from: "components/monitoring/prometheusrule.yaml", when: ".Values.monitoring.enabled", edits: append(monitoring(), edit{`namespace="binder"`, `namespace="` + release + `"`})},
		{from: "components/start-logs/role.yaml", when: ".Values.startLogs.enabled", edits: []edit{
			{"namespace: binder-instances\n", "namespace: " + instances + "\n"},
			{"    namespace: binder\n", "    namespace: " + release + "\n"},
		}},
	}
}

// monitoring adds the labels that the operator of Prometheus selects by.
func monitoring() []edit {
	line := "    app.kubernetes.io/component: monitoring\n"
	return []edit{{line, line + list(".Values.monitoring.labels", 4)}}
}

func deployment() []edit {
	return []edit{
		{"  replicas: 2\n", "  {{- if not .Values.autoscaling.enabled }}\n  replicas: {{ .Values.replicas }}\n  {{- end }}\n"},
		{"      labels:\n        app.kubernetes.io/name: binder-deploy-kubernetes\n", "      labels:\n        app.kubernetes.io/name: binder-deploy-kubernetes\n        app.kubernetes.io/component: deploy\n"},
		{"priorityClassName: binder\n", "priorityClassName: " + release + "\n"},
		{"      enableServiceLinks: false\n", "      enableServiceLinks: false\n" +
			field("imagePullSecrets", ".Values.imagePullSecrets", 6) +
			field("nodeSelector", ".Values.nodeSelector", 6) +
			field("tolerations", ".Values.tolerations", 6)},
		{"          image: binder-deploy-kubernetes\n", "          image: {{ include \"binder.image\" . }}\n          {{- with .Values.image.pullPolicy }}\n          imagePullPolicy: {{ . }}\n          {{- end }}\n"},
		{"binder-instances", instances},
		{`            # The name by which browsers know the proxy, and a domain in which each
            # instance has a host of its own. docs/operate.md says what the second
            # takes: a wildcard DNS record, certificate and ingress rule.
            # - name: BINDER_PUBLIC_HOST
            #   value: binder.example.org
            # - name: BINDER_INSTANCE_DOMAIN
            #   value: users.example.org
            # Below the memory limit, so that the garbage collector works harder
            # before the kernel kills the process.
            - name: GOMEMLIMIT
              value: 450MiB
`, `            {{- with .Values.publicHost }}
            - name: BINDER_PUBLIC_HOST
              value: {{ . | quote }}
            {{- end }}
            {{- with .Values.instanceDomain }}
            - name: BINDER_INSTANCE_DOMAIN
              value: {{ . | quote }}
            {{- end }}
            {{- with .Values.trustedProxies }}
            - name: BINDER_TRUSTED_PROXIES
              value: {{ join "," . | quote }}
            {{- end }}
            {{- range $name, $value := .Values.env }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
`},
		{`            # All of the memory: a replica with many visitors uses it, and a node that
            # has less to give would end the replica first.
            requests:
              cpu: 100m
              memory: 512Mi
            limits: # no CPU limit: throttling would delay all visitors
              memory: 512Mi
`, "            {{- toYaml .Values.resources | nindent 12 }}\n"},
		{"name: binder-api-key\n", "name: {{ .Values.secrets.apiKeyName }}\n"},
		{"name: binder-secret\n", "name: {{ .Values.secrets.secretName }}\n"},
	}
}

func quota() []edit {
	return []edit{
		{" Set them to what your nodes or your budget allow.", ""},
		{`    pods: "200"
    requests.cpu: "20"
    limits.cpu: "400"
    requests.memory: 100Gi
    limits.memory: 400Gi
    requests.ephemeral-storage: 200Gi
    # Instances need none of these.
    services: "0"
    persistentvolumeclaims: "0"
`, "    {{- toYaml .Values.instances.quota | nindent 4 }}\n"},
		{`      defaultRequest:
        cpu: 100m
        memory: 256Mi
        ephemeral-storage: 256Mi
      default:
        cpu: "1"
        memory: 1Gi
        ephemeral-storage: 2Gi
      max:
        cpu: "4"
        memory: 8Gi
        ephemeral-storage: 20Gi
`, "      {{- toYaml .Values.instances.containers | nindent 6 }}\n"},
	}
}

func placeholders() []edit {
	const requests = "              cpu: 100m\n              memory: 256Mi\n              ephemeral-storage: 256Mi\n"
	return []edit{
		{"replicas: 3", "replicas: {{ .Values.headroom.replicas }}"},
		{"priorityClassName: binder-headroom", "priorityClassName: " + headroom},
		{"      enableServiceLinks: false\n", "      enableServiceLinks: false\n" +
			field("nodeSelector", ".Values.headroom.nodeSelector", 6) +
			field("tolerations", ".Values.headroom.tolerations", 6)},
		{"registry.k8s.io/pause:3.10.1", "{{ .Values.headroom.image }}"},
		{"What an instance requests: here, one of the template jupyter.", "What an instance requests."},
		{requests, "              {{- toYaml .Values.headroom.requests | nindent 14 }}\n"},
	}
}

func autoscaler() []edit {
	return []edit{
		{"minReplicas: 2", "minReplicas: {{ .Values.autoscaling.minReplicas }}"},
		{"maxReplicas: 6", "maxReplicas: {{ .Values.autoscaling.maxReplicas }}"},
		{"averageValue: 500m", "averageValue: {{ .Values.autoscaling.cpu }}"},
		{"    # Half of what a replica holds", "    {{- if .Values.autoscaling.connections }}\n    # Half of what a replica holds"},
		{"          averageValue: \"1200\"\n", "          averageValue: {{ .Values.autoscaling.connections | quote }}\n    {{- end }}\n"},
	}
}

func ingress() []edit {
	const rule = `      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: binder-proxy
                port:
                  name: proxy
`
	return []edit{
		{`    # WebSockets and requests may be silent for an hour. The proxy itself ends requests
    # that make no progress.
    nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"
    nginx.ingress.kubernetes.io/proxy-send-timeout: "3600"
    # Uploads of any size, and no part of a request or an answer waits for the next.
    nginx.ingress.kubernetes.io/proxy-body-size: "0"
    nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
    nginx.ingress.kubernetes.io/proxy-buffering: "off"
`, "    {{- toYaml .Values.ingress.annotations | nindent 4 }}\n"},
		{"ingressClassName: nginx", "ingressClassName: {{ .Values.ingress.className }}"},
		{"      secretName: binder-tls\n", "      secretName: {{ .Values.tls.secretName }}\n" + ifDomain("    - hosts: [{{ include \"binder.instanceHosts\" . | quote }}]\n      secretName: {{ .Values.tls.instancesSecretName }}\n")},
		{"binder.example.org", "{{ include \"binder.publicHost\" . }}"},
		{"", ifDomain("    - host: {{ include \"binder.instanceHosts\" . | quote }}\n" + rule)},
	}
}

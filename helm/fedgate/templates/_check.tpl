{{- /* What a schema cannot say, or cannot say well. Each message names the value and the fix. */ -}}
{{- define "fedgate.check" -}}
{{- $v := .Values -}}
{{- if not $v.cluster.name -}}
{{- fail "cluster.name is empty: set it to this cluster's name in the federation, which no other cluster has, such as `--set cluster.name=east`" -}}
{{- end -}}
{{- $grace := add $v.gateway.drain.acceptSeconds 35 | int -}}
{{- if lt (int $v.gateway.terminationGracePeriodSeconds) $grace -}}
{{- fail (printf "gateway.terminationGracePeriodSeconds = %v cuts draining gateways off: set it to at least gateway.drain.acceptSeconds + 35 = %d" $v.gateway.terminationGracePeriodSeconds $grace) -}}
{{- end -}}
{{- if gt (add $v.federation.importPorts.first $v.federation.importPorts.count | int) 65536 -}}
{{- fail (printf "federation.importPorts = {first: %v, count: %v} ends above port 65535: lower one of them" $v.federation.importPorts.first $v.federation.importPorts.count) -}}
{{- end -}}
{{- if and $v.gateway.autoscaling.enabled (ne $v.gateway.kind "Deployment") -}}
{{- fail (printf "gateway.autoscaling.enabled = true: a %s is not scaled; set gateway.kind to Deployment or autoscaling.enabled to false" $v.gateway.kind) -}}
{{- end -}}
{{- if and $v.gateway.autoscaling.enabled (not (dig "requests" "cpu" "" $v.gateway.resources)) -}}
{{- fail "gateway.autoscaling.enabled = true: use of CPU is a share of what is requested; set gateway.resources.requests.cpu" -}}
{{- end -}}
{{- if gt (int $v.gateway.autoscaling.minReplicas) (int $v.gateway.autoscaling.maxReplicas) -}}
{{- fail (printf "gateway.autoscaling.minReplicas = %v is more than gateway.autoscaling.maxReplicas = %v: lower it" $v.gateway.autoscaling.minReplicas $v.gateway.autoscaling.maxReplicas) -}}
{{- end -}}
{{- $monitored := or $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled -}}
{{- if and $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled are both true: every pod would be scraped twice; set one to false" -}}
{{- end -}}
{{- if and $monitored $v.networkPolicy.enabled (not $v.networkPolicy.metricsFrom) -}}
{{- fail "networkPolicy.metricsFrom is empty, so that no Prometheus reaches the metrics: name where it runs, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}
{{- range list (list "relay" "admin") (list "relay" "health") (list "admin" "health") -}}
{{- $one := index . 0 -}}
{{- $other := index . 1 -}}
{{- if eq (index $v.gateway.ports $one | int) (index $v.gateway.ports $other | int) -}}
{{- fail (printf "gateway.ports.%s and gateway.ports.%s are both %v: give each a port of its own" $one $other (index $v.gateway.ports $one)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.service.healthCheckNodePort (ne $v.service.externalTrafficPolicy "Local") -}}
{{- fail (printf "service.healthCheckNodePort = %v is used with service.externalTrafficPolicy Local only: set that, or leave the port out" $v.service.healthCheckNodePort) -}}
{{- end -}}
{{- if and (ne $v.service.type "LoadBalancer") (or $v.service.loadBalancerClass $v.service.loadBalancerIP $v.service.loadBalancerSourceRanges) -}}
{{- fail (printf "service.type = %s has no load balancer: leave service.loadBalancerClass, loadBalancerIP and loadBalancerSourceRanges empty" $v.service.type) -}}
{{- end -}}
{{- if and (eq $v.service.type "ClusterIP") $v.service.externalTrafficPolicy -}}
{{- fail (printf "service.externalTrafficPolicy = %s: a Service of type ClusterIP has no traffic from outside; leave it empty" $v.service.externalTrafficPolicy) -}}
{{- end -}}
{{- end -}}

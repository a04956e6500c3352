// The custom resource definitions that the owner of a cluster installs. They are applied from the Go
// module cache; go.sum is what pins their content, and no Go code is built from here.
module fedgate.dev/kind-e2e/crds

go 1.26.0

require (
	sigs.k8s.io/gateway-api v1.6.3
	sigs.k8s.io/mcs-api v0.5.2
)

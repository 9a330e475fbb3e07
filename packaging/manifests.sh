#!/bin/sh
# manifests.sh [IMAGE]: prints the base as one file, for `kubectl apply -f`. IMAGE is the name of
# the daemon's image with its tag or digest, in place of the base's.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
kubectl=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/}kubectl

cat <<'END'
# Everything that the daemon needs in a cluster but its config and its rights in the namespaces of
# the databases, in one file. Made from deploy/base by `make manifests`. Two commands add the rest:
#   external-endpoints rbac config.yaml | kubectl apply -f -
#   kubectl -n external-endpoints create configmap external-endpoints-config --from-file=config.yaml
END
if [ $# -gt 0 ]; then
	case $1 in
		*[!a-zA-Z0-9./:@_-]* | "") echo "manifests: $1 is not the name of an image" >&2; exit 1 ;;
	esac
	"$kubectl" kustomize "$root/deploy/base" | sed "s|^\( *image: \).*|\1$1|"
else
	"$kubectl" kustomize "$root/deploy/base"
fi

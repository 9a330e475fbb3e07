// The engines of Flux and of Argo CD, one round a call, with the cluster of KUBECONFIG:
//
//	gitops flux MANIFESTS [PREVIOUS]
//	gitops argo MANIFESTS client|server
//
// Both apply the manifests as their controllers do, and delete what belongs to them and is no longer
// in the manifests. Each prints a line for an object: its kind and name, and what was done to it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fluxcd/pkg/ssa/utils"
)

const usage = "usage: gitops flux MANIFESTS [PREVIOUS] | gitops argo MANIFESTS client|server"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf(usage)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	objects, err := read(arguments[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch tool := arguments[0]; {
	case tool == "flux" && len(arguments) == 2:
		return flux(ctx, config, objects, nil)
	case tool == "flux" && len(arguments) == 3:
		previous, err := read(arguments[2])
		if err != nil {
			return err
		}
		return flux(ctx, config, objects, previous)
	case tool == "argo" && len(arguments) == 3:
		return argo(ctx, config, objects, arguments[2] == "server")
	}
	return fmt.Errorf(usage)
}

func read(path string) ([]*unstructured.Unstructured, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return utils.ReadObjects(file)
}

func key(object *unstructured.Unstructured) string {
	return object.GetKind() + "/" + object.GetName()
}

// quiet lets a client make as many calls as it wants.
func quiet(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 1000, 1000
	return config
}

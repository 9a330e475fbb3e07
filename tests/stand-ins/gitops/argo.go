package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
)

const (
	argoApp      = "databases"
	argoLabel    = "app.kubernetes.io/instance"
	argoTracking = "argocd.argoproj.io/tracking-id"
	argoManager  = "argocd-controller"
)

// argo compares and syncs as an application with `prune: true` does. It tracks by the label and by
// the annotation at once, and excludes no kind, so that it deletes whatever looks like its own.
func argo(ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured, serverSide bool) error {
	namespace := ""
	for _, object := range objects {
		namespace = object.GetNamespace()
		labels, annotations := object.GetLabels(), object.GetAnnotations()
		if labels == nil {
			labels = map[string]string{}
		}
		if annotations == nil {
			annotations = map[string]string{}
		}
		labels[argoLabel] = argoApp
		kind := object.GroupVersionKind()
		annotations[argoTracking] = fmt.Sprintf("%s:%s/%s:%s/%s", argoApp, kind.Group, kind.Kind, namespace, object.GetName())
		object.SetLabels(labels)
		object.SetAnnotations(annotations)
	}
	log := logr.Discard()
	cluster := cache.NewClusterCache(quiet(config),
		cache.SetNamespaces([]string{namespace}),
		cache.SetLogr(log),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			tracked := object.GetLabels()[argoLabel] == argoApp || object.GetAnnotations()[argoTracking] != ""
			return tracked, tracked
		}),
	)
	controller := engine.NewEngine(quiet(config), cluster, engine.WithLogr(log))
	stop, err := controller.Run()
	if err != nil {
		return err
	}
	defer stop()
	isManaged := func(resource *cache.Resource) bool { return resource.Info.(bool) }
	if err := compare(cluster, objects, namespace, isManaged, "before"); err != nil {
		return err
	}
	results, err := controller.Sync(ctx, objects, isManaged, "revision", namespace,
		sync.WithPrune(true),
		sync.WithLogr(log),
		sync.WithServerSideApply(serverSide),
		sync.WithServerSideApplyManager(argoManager),
	)
	if err != nil {
		return err
	}
	for _, result := range results {
		fmt.Printf("%s/%s %s: %s\n", result.ResourceKey.Kind, result.ResourceKey.Name, result.Status, result.Message)
	}
	cluster.Invalidate()
	if err := cluster.EnsureSynced(); err != nil {
		return err
	}
	return compare(cluster, objects, namespace, isManaged, "after")
}

// compare prints how each object stands to Git, as the application's page shows it.
func compare(cluster cache.ClusterCache, objects []*unstructured.Unstructured, namespace string, isManaged func(*cache.Resource) bool, when string) error {
	managed, err := cluster.GetManagedLiveObjs(objects, isManaged)
	if err != nil {
		return err
	}
	result := sync.Reconcile(objects, managed, namespace, cluster)
	diffs, err := diff.DiffArray(result.Target, result.Live)
	if err != nil {
		return err
	}
	for index, entry := range diffs.Diffs {
		object, status := result.Target[index], "Synced"
		switch {
		case object == nil:
			object, status = result.Live[index], "Pruned"
		case entry.Modified:
			status = "OutOfSync"
		}
		fmt.Printf("%s %s %s\n", key(object), when, status)
	}
	return nil
}

package main

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
)

const (
	fluxManager = "kustomize-controller"
	fluxGroup   = "kustomize.toolkit.fluxcd.io"
)

// flux reconciles as the kustomize-controller does with its defaults and `prune: true`: it takes
// over what kubectl has set, removes it if Git does not have it, and applies with force.
func flux(ctx context.Context, config *rest.Config, objects, previous []*unstructured.Unstructured) error {
	cluster, err := client.New(quiet(config), client.Options{})
	if err != nil {
		return err
	}
	owner := ssa.Owner{Field: fluxManager, Group: fluxGroup}
	manager := ssa.NewResourceManager(cluster, nil, owner)
	manager.SetOwnerLabels(objects, "databases", "flux-system")
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}
	options := ssa.DefaultApplyOptions()
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{"kubectl.kubernetes.io/last-applied-configuration"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: fluxManager, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{fluxGroup + "/ssa": "Merge"},
	}
	changes, err := manager.ApplyAllStaged(ctx, objects, options)
	if err != nil {
		return err
	}
	for _, entry := range changes.Entries {
		fmt.Println(entry.ObjMetadata.GroupKind.Kind+"/"+entry.ObjMetadata.Name, entry.Action)
	}
	stale := without(previous, objects)
	deletion := ssa.DefaultDeleteOptions()
	deletion.Exclusions = map[string]string{fluxGroup + "/prune": "disabled"}
	deletion.Inclusions = manager.GetOwnerLabels("databases", "flux-system")
	deletions, err := manager.DeleteAll(ctx, stale, deletion)
	if err != nil {
		return err
	}
	for _, entry := range deletions.Entries {
		fmt.Println(entry.ObjMetadata.GroupKind.Kind+"/"+entry.ObjMetadata.Name, entry.Action)
	}
	return nil
}

// without returns the objects of `previous` that `objects` has not.
func without(previous, objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	there := map[string]bool{}
	for _, object := range objects {
		there[key(object)] = true
	}
	var stale []*unstructured.Unstructured
	for _, object := range previous {
		if !there[key(object)] {
			stale = append(stale, object)
		}
	}
	return stale
}

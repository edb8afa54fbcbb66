// Package harness puts the service on a running cluster, in namespaces of its
// own, and helps tests to use it as a client, a visitor and an operator do.
package harness

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// fieldManager owns what the harness applies.
const fieldManager = "binder-e2e"

// Kube is a cluster as its administrator sees it.
type Kube struct {
	Client     kubernetes.Interface
	dynamic    dynamic.Interface
	mapper     meta.RESTMapper
	kubeconfig string
}

// Connect reads a kubeconfig and asks the API server for its version, so that a
// cluster that is not there is an error now and not in the first test.
func Connect(kubeconfig string) (*Kube, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS = -1 // a cluster of our own: nobody else to be polite to
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		return nil, fmt.Errorf("ask the API server for its version: %w", err)
	}
	byKind, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a dynamic client: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return &Kube{Client: client, dynamic: byKind, mapper: mapper, kubeconfig: kubeconfig}, nil
}

// apply brings objects to the state they are written in, one after another.
func (k *Kube) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		kind := object.GroupVersionKind()
		mapping, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return fmt.Errorf("find the resource of %s: %w", kind.Kind, err)
		}
		data, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("encode %s %s: %w", kind.Kind, object.GetName(), err)
		}
		force := true
		_, err = k.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace()).
			Patch(ctx, object.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", kind.Kind, object.GetName(), err)
		}
	}
	return nil
}

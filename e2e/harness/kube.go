// Package harness deploys the service to separate namespaces of a running cluster.
// It helps tests to use the service as a client, a visitor and an operator do.
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

// fieldManager is the field manager of the objects that the harness applies.
const fieldManager = "binder-e2e"

// Kube is a client of the cluster with administrator rights.
type Kube struct {
	Client     kubernetes.Interface
	dynamic    dynamic.Interface
	mapper     meta.RESTMapper
	kubeconfig string
}

// Connect reads a kubeconfig and connects to the cluster. It gets the API server's
// version, so that a missing cluster is an error here and not in the first test.
func Connect(kubeconfig string) (*Kube, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS = -1 // no limit: the cluster is for the tests only
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create a client: %w", err)
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		return nil, fmt.Errorf("get the API server's version: %w", err)
	}
	byKind, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create a dynamic client: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return &Kube{Client: client, dynamic: byKind, mapper: mapper, kubeconfig: kubeconfig}, nil
}

// apply applies objects with server-side apply, in order.
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

// Package harness deploys the service to separate namespaces of a running cluster.
// It helps tests to use the service as a client, a visitor and an operator do.
package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	mapper     meta.ResettableRESTMapper
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

// Kubeconfig returns the path of the kubeconfig.
func (k *Kube) Kubeconfig() string { return k.kubeconfig }

// ClusterDir returns the directory of the local cluster's files.
func (k *Kube) ClusterDir() string { return filepath.Dir(k.kubeconfig) }

// LoadImage loads an archive of an image into the local cluster, as its command load does.
func (k *Kube) LoadImage(ctx context.Context, root, archive string) error {
	load := exec.CommandContext(ctx, filepath.Join(k.ClusterDir(), "bin", "cluster"), "load", "--dir="+k.ClusterDir(), archive)
	load.Dir = root
	if output, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("load the image %s: %w\n%s", archive, err, output)
	}
	return nil
}

// AsService returns a client with the service's rights.
func (k *Kube) AsService(t testing.TB) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", k.kubeconfig)
	if err != nil {
		t.Fatalf("read kubeconfig %s: %v", k.kubeconfig, err)
	}
	config.Impersonate.UserName = serviceUser
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("create a client: %v", err)
	}
	return client
}

// Apply applies objects with server-side apply, in order.
func (k *Kube) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	return k.apply(ctx, objects)
}

// DryRun lets the API server check objects as if they were applied, and keeps none.
func (k *Kube) DryRun(ctx context.Context, objects []*unstructured.Unstructured) error {
	return k.apply(ctx, objects, metav1.DryRunAll)
}

func (k *Kube) apply(ctx context.Context, objects []*unstructured.Unstructured, dryRun ...string) error {
	for _, object := range objects {
		resource, err := k.resource(object)
		if err != nil {
			return err
		}
		data, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("encode %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		force := true
		_, err = k.dynamic.Resource(resource).Namespace(object.GetNamespace()).
			Patch(ctx, object.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: &force, DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// InstallCRDs creates those CustomResourceDefinitions that the cluster does not have, and
// deletes these at the end of the test.
func (k *Kube) InstallCRDs(t testing.TB, definitions []*unstructured.Unstructured) {
	t.Helper()
	resource := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	client := k.dynamic.Resource(resource)
	for _, definition := range definitions {
		name := definition.GetName()
		_, err := client.Create(t.Context(), definition, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			t.Fatalf("create the CustomResourceDefinition %s: %v", name, err)
		}
		t.Cleanup(func() {
			k.Remove(t, []*unstructured.Unstructured{definition})
			k.mapper.Reset()
		})
		Until(t, time.Minute, name+" is served", func(ctx context.Context) error {
			k.mapper.Reset()
			kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
			group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
			_, err := k.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind})
			return err
		})
	}
}

// Remove deletes objects, at the end of a test, and waits until they are gone.
func (k *Kube) Remove(t testing.TB, objects []*unstructured.Unstructured) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, object := range objects {
		err := poll(ctx, cleanupTimeout, func(ctx context.Context) error {
			resource, err := k.resource(object)
			if err != nil {
				return err
			}
			err = k.dynamic.Resource(resource).Namespace(object.GetNamespace()).Delete(ctx, object.GetName(), metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it still exists"))
		})
		if err != nil {
			t.Errorf("delete %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// deleteClusterWide deletes those of the objects that belong to no namespace, except
// namespaces themselves.
func (k *Kube) deleteClusterWide(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetNamespace() != "" || object.GetKind() == "Namespace" {
			continue
		}
		resource, err := k.resource(object)
		if err != nil {
			return err
		}
		err = k.dynamic.Resource(resource).Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

func (k *Kube) resource(object *unstructured.Unstructured) (schema.GroupVersionResource, error) {
	kind := object.GroupVersionKind()
	mapping, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("find the resource of %s: %w", kind.Kind, err)
	}
	return mapping.Resource, nil
}

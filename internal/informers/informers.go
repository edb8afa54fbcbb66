// Package informers gives client-go's informers types, and has the indexes and transforms of
// those of the read model.
//
// It decides nothing, and never starts an informer.
package informers

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Resource is a typed client of one resource.
type Resource[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// Source is where informers read.
type Source struct {
	Client any          // the client that the resources are of
	Log    *slog.Logger // is told of each read that fails, so it should hold repetitions back
}

// Watch lists and watches a resource, and persists while the API server is away. name is that
// of the resource, for the log. only selects what is watched; nil means all.
func Watch[L runtime.Object](from Source, name string, resource Resource[L], only func(*metav1.ListOptions)) cache.ListerWatcher {
	if only == nil {
		only = func(*metav1.ListOptions) {}
	}
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			only(&opts)
			return persist(ctx, from.Log, name, func() (runtime.Object, error) { return resource.List(ctx, opts) })
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			only(&opts)
			return persist(ctx, from.Log, name, func() (watch.Interface, error) { return resource.Watch(ctx, opts) })
		},
	}, from.Client)
}

// Handle calls changed for every version of an object of type T, with the version
// before it, or nil. It calls gone, if that is not nil, for the last version of a
// deleted object. After a broken watch that is the last version that was delivered.
func Handle[T any](informer cache.SharedIndexInformer, changed func(before, object T), gone func(object T)) error {
	var none T
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if object, ok := obj.(T); ok {
				changed(none, object)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, _ := old.(T)
			if object, ok := obj.(T); ok {
				changed(before, object)
			}
		},
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if object, ok := obj.(T); ok && gone != nil {
				gone(object)
			}
		},
	})
	return err
}

// Lookup returns the object of a key.
func Lookup[T any](informer cache.SharedIndexInformer, key string) (T, bool) {
	obj, _, err := informer.GetStore().GetByKey(key)
	found, ok := obj.(T)
	return found, ok && err == nil
}

// Indexed lists by an index of an informer, or all for "".
func Indexed[T any](informer cache.SharedIndexInformer, index, value string) []T {
	if value == "" {
		return List[T](informer.GetStore().List())
	}
	objs, err := informer.GetIndexer().ByIndex(index, value)
	if err != nil { // only if the index does not exist
		panic(err)
	}
	return List[T](objs)
}

// List returns the objects of type T.
func List[T any](objs []any) []T {
	all := make([]T, 0, len(objs))
	for _, obj := range objs {
		if object, ok := obj.(T); ok {
			all = append(all, object)
		}
	}
	return all
}

// ByTemplate files an object under the full name of its template.
func ByTemplate(obj any) ([]string, error) {
	meta, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("index by template: unexpected %T", obj)
	}
	return []string{instance.TemplateOf(meta)}, nil
}

// ByClient files an object under the client whose launch made it an instance.
func ByClient(obj any) ([]string, error) {
	if meta, ok := obj.(metav1.Object); ok && meta.GetLabels()[instance.ClientLabel] != "" {
		return []string{meta.GetLabels()[instance.ClientLabel]}, nil
	}
	return nil, nil
}

// ByPod files Warning Events under the UID of their pod.
func ByPod(obj any) ([]string, error) {
	if event, ok := obj.(*corev1.Event); ok && event.InvolvedObject.UID != "" {
		return []string{string(event.InvolvedObject.UID)}, nil
	}
	return nil, nil
}

// Slim drops what nothing reads before an object is stored: managedFields alone are
// often half of it.
func Slim(obj any) (any, error) {
	if meta, ok := obj.(metav1.Object); ok {
		meta.SetManagedFields(nil)
	}
	return obj, nil
}

// SlimWarning leaves of a Warning Event what is read.
func SlimWarning(obj any) (any, error) {
	if event, ok := obj.(*corev1.Event); ok {
		return instance.SlimWarning(event), nil
	}
	return obj, nil
}

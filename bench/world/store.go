package world

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/rest"
)

const (
	storeAddress = "https://127.0.0.1:2379"
	storeDial    = 10 * time.Second
	storeTimeout = 30 * time.Second
	// changers is how many pods are changed at a time.
	changers = 64
)

// store is the etcd in which the local cluster's API server keeps its objects. Many pods
// are written and deleted there, because the API server takes milliseconds for each. It
// sees these changes as it sees those of another API server.
type store struct {
	client  *clientv3.Client
	mu      sync.Mutex
	changed int64 // the last revision in which this store has changed pods
}

// openStore connects to the etcd of the local cluster whose files are in a directory.
func openStore(cluster string) (*store, error) {
	keys := filepath.Join(cluster, "run", "pki")
	tls, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{
		CertFile: filepath.Join(keys, "etcd-client.crt"),
		KeyFile:  filepath.Join(keys, "etcd-client.key"),
		CAFile:   filepath.Join(keys, "etcd-ca.crt"),
	}})
	if err != nil {
		return nil, fmt.Errorf("read the keys of etcd: %w", err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{storeAddress}, DialTimeout: storeDial, TLS: tls})
	if err != nil {
		return nil, fmt.Errorf("make a client of etcd: %w", err)
	}
	return &store{client: client}, nil
}

// put writes a pod.
func (s *store) put(ctx context.Context, pod *corev1.Pod) error {
	var encoded bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(pod, &encoded); err != nil {
		return fmt.Errorf("encode a pod: %w", err)
	}
	return s.change(ctx, clientv3.OpPut(podsKey(pod.Namespace)+pod.Name, encoded.String()))
}

// deletePods deletes all pods of a namespace.
func (s *store) deletePods(ctx context.Context, namespace string) error {
	found, err := s.client.Get(ctx, podsKey(namespace), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list the pods in etcd: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(changers)
	for _, pod := range found.Kvs {
		group.Go(func() error { return s.change(ctx, clientv3.OpDelete(string(pod.Key))) })
	}
	return group.Wait()
}

// change changes one pod. Several in one revision would be faster, but the API server and
// its clients take a revision for one change: they lose others when they resume a watch.
func (s *store) change(ctx context.Context, change clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	response, err := s.client.Txn(ctx).Then(change).Commit()
	if err != nil {
		return fmt.Errorf("change a pod in etcd: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = max(s.changed, response.Header.Revision)
	return nil
}

// podsKey is what the keys of a namespace's pods start with.
func podsKey(namespace string) string { return "/registry/pods/" + namespace + "/" }

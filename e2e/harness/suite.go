package harness

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/openapi"
)

// Namespaces and addresses of e2e/manifests. They differ from those of the demo,
// so that both can run on the same cluster.
const (
	Namespace          = "binder-e2e"
	InstancesNamespace = "binder-e2e-instances"
	PublicHost         = "127.0.0.1:18000" // the proxy's address; the host of every location

	apiURL = "http://127.0.0.1:18084"

	// DefaultCullTimeout and StartTimeout are set by the Deployment's flags.
	DefaultCullTimeout = 18 * time.Second
	StartTimeout       = time.Minute
	// FailedRetention is how long the service keeps a failed instance.
	FailedRetention = time.Minute
)

const (
	rolloutTimeout = 2 * time.Minute
	cleanupTimeout = 2 * time.Minute
)

// Suite is the service under test.
type Suite struct {
	Kube *Kube
	API  API // uses the Service and the API key

	root     string // the repository's root
	options  Options
	began    time.Time // audit events before it are an earlier run's
	out      io.Writer
	registry *http.Server // the template registry
	logs     *logWatch
}

// Options are how the service is deployed, if not as by most tests.
type Options struct {
	Manifests string                       // the folder below the repository's root; e2e/manifests if empty
	Secrets   map[string]map[string]string // further Secrets in Namespace, by name
	// Outages says that the tests stop parts of the cluster. An API server that starts again
	// denies requests until it has read the Roles, and the logs that it passes on break off:
	// neither is a fault of the service then. What was read of the logs is checked.
	Outages bool
}

// Start deploys the service and waits until it answers. It first removes what an
// earlier run has left. Progress goes to out.
func Start(ctx context.Context, kube *Kube, root string, out io.Writer, options Options) (*Suite, error) {
	s := &Suite{Kube: kube, root: root, options: options, out: out, began: time.Now()}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"reading docs/openapi.json", s.readDocument},
		{"installing binder-client if necessary", s.installClient},
		{"removing what an earlier run has left", s.remove},
		{"starting a template registry", s.startRegistry},
		{"following the service's log", s.followLogs},
		{"applying the manifests", s.deploy},
		{"waiting for both replicas", s.awaitRollout},
		{"waiting for the API", s.awaitAPI},
	} {
		if err := s.progress(ctx, step.what, step.do); err != nil {
			return s, err
		}
	}
	return s, nil
}

// readDocument makes the client of the API.
func (s *Suite) readDocument(context.Context) error {
	document, err := openapi.Load(filepath.Join(s.root, "docs", "openapi.json"))
	s.API = newAPI(apiURL, rand.Text(), document)
	return err
}

// Stop removes everything that Start and the tests have created. It returns an error
// if the service's log had a panic or a line that is not JSON, at any time, or if the
// service's rights are not those that it needs. all says that every test ran.
func (s *Suite) Stop(ctx context.Context, all bool) error {
	defer s.stopRegistry()
	var err error
	if !s.options.Outages {
		err = s.checkRights(all)
	}
	err = errors.Join(err, s.progress(ctx, "removing the tests' objects", s.remove))
	if s.logs == nil {
		return err
	}
	summary, problems := s.logs.end()
	fmt.Fprintf(s.out, "e2e: %s\n", summary)
	return errors.Join(err, problems)
}

// followLogs begins to check the service's log, and forgets those of an earlier run.
func (s *Suite) followLogs(ctx context.Context) error {
	dir := s.logDir()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	s.logs = watchLogs(context.WithoutCancel(ctx), s.Kube.Client, dir, s.options.Outages)
	return nil
}

func (s *Suite) logDir() string { return filepath.Join(s.root, ".build", "logs") }

// LogSizes returns how much there is of the log of each replica, by the file that has it. The logs
// of those that are gone are there, too.
func (s *Suite) LogSizes() (map[string]int64, error) {
	sizes := map[string]int64{}
	files, err := os.ReadDir(s.logDir())
	if err != nil {
		return nil, fmt.Errorf("find the replicas' logs: %w", err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			return nil, fmt.Errorf("look at a replica's log: %w", err)
		}
		sizes[filepath.Join(s.logDir(), file.Name())] = info.Size()
	}
	return sizes, nil
}

func (s *Suite) progress(ctx context.Context, what string, do func(context.Context) error) error {
	fmt.Fprintf(s.out, "e2e: %s…\n", what)
	began := time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if took := time.Since(began); took > 2*time.Second {
		fmt.Fprintf(s.out, "e2e: … done in %s\n", took.Round(100*time.Millisecond))
	}
	return nil
}

func (s *Suite) deploy(ctx context.Context) error {
	objects, err := s.render()
	if err != nil {
		return err
	}
	if err := s.Kube.apply(ctx, objects); err != nil {
		return err
	}
	secrets := map[string]map[string]string{
		"binder-api-key": {"api-key": s.API.key},
		"binder-secret":  {"secret": rand.Text()},
	}
	maps.Copy(secrets, s.options.Secrets)
	for name, data := range secrets {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}
		if _, err := s.Kube.Client.CoreV1().Secrets(Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create the Secret %s: %w", secret.Name, err)
		}
	}
	return nil
}

// render renders the manifests that the service is deployed by.
func (s *Suite) render() ([]*unstructured.Unstructured, error) {
	return Render(filepath.Join(s.root, cmp.Or(s.options.Manifests, "e2e/manifests")))
}

func (s *Suite) awaitRollout(ctx context.Context) error { return s.AwaitRollout(ctx, 0) }

// AwaitRollout waits until the Deployment's replicas are all of its latest version and ready,
// none of an earlier one is left, and the Deployment's controller has seen a generation of it.
func (s *Suite) AwaitRollout(ctx context.Context, generation int64) error {
	return poll(ctx, rolloutTimeout, func(ctx context.Context) error {
		deployment, err := s.Kube.Client.AppsV1().Deployments(Namespace).Get(ctx, deploymentName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		want, status := *deployment.Spec.Replicas, deployment.Status
		if status.ObservedGeneration < generation || status.UpdatedReplicas < want || status.ReadyReplicas < want || status.Replicas > want {
			return fmt.Errorf("of %d replicas %d are new, %d ready, %d in all", want, status.UpdatedReplicas, status.ReadyReplicas, status.Replicas)
		}
		return nil
	})
}

func (s *Suite) awaitAPI(ctx context.Context) error {
	return poll(ctx, rolloutTimeout, func(ctx context.Context) error {
		answer, err := s.API.Try(ctx, http.MethodGet, "/applications/", "", "Authorization", s.API.key)
		if err == nil && answer.Code != http.StatusOK {
			err = fmt.Errorf("GET /applications/ returned %d: %s", answer.Code, answer.Body)
		}
		return err
	})
}

// AwaitAPI waits until the API answers through its Service.
func (s *Suite) AwaitAPI(t testing.TB) {
	t.Helper()
	if err := s.awaitAPI(t.Context()); err != nil {
		t.Fatalf("wait for the API: %v", err)
	}
}

// remove removes the objects of the manifests, with everything in their namespaces.
func (s *Suite) remove(ctx context.Context) error {
	objects, err := s.render()
	if err != nil {
		return err
	}
	return errors.Join(s.removeNamespaces(ctx), s.Kube.deleteClusterWide(ctx, objects))
}

func (s *Suite) removeNamespaces(ctx context.Context) error {
	namespaces := s.Kube.Client.CoreV1().Namespaces()
	// Delete the controller first, or it writes a tombstone for every instance.
	for _, name := range []string{Namespace, InstancesNamespace} {
		err := namespaces.Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete namespace %s: %w", name, err)
		}
	}
	return poll(ctx, cleanupTimeout, func(ctx context.Context) error {
		for _, name := range []string{Namespace, InstancesNamespace} {
			switch _, err := namespaces.Get(ctx, name, metav1.GetOptions{}); {
			case err == nil:
				return fmt.Errorf("namespace %s still exists", name)
			case !apierrors.IsNotFound(err):
				return err
			}
		}
		return nil
	})
}

// poll calls check until it succeeds. On timeout it returns check's last error.
func poll(ctx context.Context, within time.Duration, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, within, true, func(ctx context.Context) (bool, error) {
		if err := check(ctx); err != nil {
			if ctx.Err() == nil || last == nil {
				last = err
			}
			return false, nil
		}
		return true, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("timed out after %s: %w", within, last)
	}
	return err
}

package activity

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestKeepAlive(t *testing.T) {
	now := kubetest.Noon.Add(time.Hour)
	for name, test := range map[string]struct {
		ago     time.Duration // the last use
		timeout time.Duration
		change  func(*corev1.Pod)
		writes  int
		want    string // the cull timeout on the pod
	}{
		"idle for long":            {40 * time.Minute, 0, nil, 1, ""},
		"with a longer timeout":    {40 * time.Minute, 4 * time.Hour, nil, 1, "4h0m0s"},
		"with the present timeout": {40 * time.Minute, time.Hour, nil, 1, ""},
		"again at once":            {4 * time.Second, 0, nil, 0, ""},
		"used, and then longer":    {4 * time.Second, 2 * time.Hour, nil, 1, "2h0m0s"},
		"again, as long":           {4 * time.Second, 2 * time.Hour, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "2h"), 0, "2h"},
		"the last use is mangled":  {0, 0, kubetest.WithAnnotation(instance.LastActivityAnnotation, "x"), 1, ""},
		"the last use is ahead":    {-time.Hour, 0, nil, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, test.ago, now, kubetest.All(), func(pod *corev1.Pod) {
				if test.change != nil {
					test.change(pod)
				}
			}))
			tracker := newTracker(world)
			if err := tracker.KeepAlive(t.Context(), kubetest.ID(1), test.timeout); err != nil {
				t.Fatal(err)
			}
			wantWrites(t, world, test.writes)
			pod := stored(t, world, 1)
			if got := pod.Annotations[instance.CullTimeoutAnnotation]; got != test.want {
				t.Errorf("the cull timeout is %q, want %q", got, test.want)
			}
			if test.writes > 0 {
				wantUsed(t, world, 1, now)
				if got := pod.Annotations[instance.ActivitySourceAnnotation]; got != string(instance.SourceKeepAlive) {
					t.Errorf("the source is %q", got)
				}
			}
		})
	}
}

// Others write to the same pod; the pod ends; the API server fails.
func TestKeepAliveMeetsOthers(t *testing.T) {
	resource := schema.GroupResource{Resource: "pods"}
	conflict := apierrors.NewConflict(resource, "x", errors.New("changed"))
	for name, test := range map[string]struct {
		errs   []error // of the writes, one after another
		pod    func(*corev1.Pod)
		id     int
		want   error // nil: any
		failed bool
	}{
		"two conflicts":            {[]error{conflict, conflict}, kubetest.All(), 1, nil, false},
		"conflicts all the time":   {[]error{conflict, conflict, conflict, conflict, conflict}, kubetest.All(), 1, nil, true},
		"the pod goes":             {[]error{apierrors.NewNotFound(resource, "x")}, kubetest.All(), 1, instance.ErrEnded, true},
		"the pod is being deleted": {nil, kubetest.Deleting, 1, instance.ErrEnded, true},
		"there is no pod":          {nil, kubetest.All(), 2, instance.ErrEnded, true},
		"the API server is away":   {[]error{errAway}, kubetest.All(), 1, errAway, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Hour, time.Now(), test.pod))
				errs := test.errs
				world.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
					if len(errs) == 0 {
						return false, nil, nil
					}
					err := errs[0]
					errs = errs[1:]
					return true, nil, err
				})
				err := newTracker(world).KeepAlive(t.Context(), kubetest.ID(test.id), 0)
				if (err != nil) != test.failed || test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// However often somebody asks, at once or one after another, there is a write each 5 seconds.
func TestKeepAliveIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Hour, time.Now()))
		tracker := newTracker(world)
		var asking sync.WaitGroup
		var refused atomic.Int64
		for i := range 200 { // 20 at a time, for 5 seconds, with another timeout each time
			asking.Go(func() {
				time.Sleep(time.Duration(i/20) * 500 * time.Millisecond)
				switch err := tracker.KeepAlive(t.Context(), kubetest.ID(1), time.Hour+time.Duration(i+1)*time.Minute); {
				case errors.Is(err, instance.ErrTooSoon):
					refused.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
		asking.Wait()
		wantWrites(t, world, 1)
		if refused.Load() != 199 {
			t.Errorf("%d are refused, want 199", refused.Load())
		}
		if err := tracker.KeepAlive(t.Context(), kubetest.ID(1), 0); err != nil { // noted, and written when it is due
			t.Error(err)
		}
		time.Sleep(keepAlivePause)
		if err := tracker.KeepAlive(t.Context(), kubetest.ID(1), 2*time.Hour); err != nil {
			t.Error(err)
		}
		wantWrites(t, world, 2)
	})
}

// What is over gets no more time, although its pod is still there.
func TestKeepAliveOfWhatIsOver(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"failed": kubetest.Broken, "completed": kubetest.Completed,
		"too old": kubetest.WithAnnotation(instance.MaxAgeAnnotation, "30m"),
	} {
		world := kubetest.NewWorld(func() time.Time { return kubetest.Noon }, nil, podUsed(1, time.Hour, kubetest.Noon, change))
		if err := newTracker(world).KeepAlive(t.Context(), kubetest.ID(1), 0); !errors.Is(err, instance.ErrEnded) {
			t.Errorf("%s: got %v", name, err)
		}
		wantWrites(t, world, 0)
	}
}

// Package startlog shows waiting visitors the log of an instance that starts, where the template
// allows it.
//
// It must never know HTTP, nor show anything of an instance that is deployed.
package startlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// maxFollowed is how many logs are followed at the same time: each holds a connection to the
	// API server, and one from there to a kubelet.
	maxFollowed = 32
	// maxOfOne is how many of them can be of one instance, and openPause the least time between two
	// openings of its log.
	maxOfOne  = 2
	openPause = 2 * time.Second
	// maxLog is how much of a log is read, in bytes, and maxLine how much of a line.
	maxLog  = 64 << 10
	maxLine = 1 << 10
	// longest is how long a log is followed once there is one. It is longer than most start timeouts.
	longest = 15 * time.Minute
)

var (
	// ErrNone says that the template of an instance does not allow that, or there is no such
	// instance.
	ErrNone = errors.New("the log of this instance is not shown")
	// ErrBusy says that as many follow the log of the instance as may.
	ErrBusy = errors.New("the log of this instance is shown elsewhere")
)

// Cache is what Logs ask of the read model.
type Cache interface {
	Pod(id string) (*corev1.Pod, bool)
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
}

// Open opens the log of a container.
type Open func(ctx context.Context, pod string, opts *corev1.PodLogOptions) (io.ReadCloser, error)

// Opener returns the Open of client-go's pod client.
func Opener(pods interface {
	GetLogs(name string, opts *corev1.PodLogOptions) *rest.Request
}) Open {
	return func(ctx context.Context, pod string, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
		return pods.GetLogs(pod, opts).Stream(ctx)
	}
}

// Deps are what Logs need.
type Deps struct {
	Open  Open
	Cache Cache
	Log   *slog.Logger // is told of what fails, so it should hold repetitions back
}

// Logs follow the logs of instances that start. Their methods may be called at the same time.
type Logs struct {
	deps     Deps
	followed chan struct{} // an element for each

	mu   sync.Mutex
	ofID map[string]following // of those that are followed, or were a moment ago
}

// following is how many follow the log of an instance, and when it may be opened next.
type following struct {
	by   int
	next time.Time
}

// New returns Logs.
func New(deps Deps) *Logs {
	return &Logs{deps: deps, followed: make(chan struct{}, maxFollowed), ofID: map[string]following{}}
}

// Follow gives send what the application of an instance puts out, whole lines of plain text, until
// it is deployed or has ended, ctx is done, or send returns an error. The error is ErrNone, ErrBusy,
// or of send; what cannot be read is only logged.
func (l *Logs) Follow(ctx context.Context, id string, send func(lines string) error) error {
	pod, exists := l.deps.Cache.Pod(id)
	if !exists || !instance.ShowsLog(pod) {
		return ErrNone
	}
	container, began := l.awaitLog(ctx, id)
	if !began {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	leave, err := l.enter(ctx, id)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer leave()
	ended := make(chan struct{})
	defer func() { <-ended }()
	defer cancel()
	go func() {
		defer close(ended)
		l.deps.Cache.Await(ctx, id, func(inst instance.Instance, known bool) bool { return !known || inst.Status.Settled() })
		cancel()
	}()
	log, err := l.deps.Open(ctx, pod.Name, &corev1.PodLogOptions{Container: container, Follow: true, LimitBytes: new(int64(maxLog))})
	if err != nil {
		l.tell(ctx, pod, err)
		return nil
	}
	defer log.Close()
	return l.pass(ctx, pod, log, send)
}

// enter waits until one more log may be opened, and counts it until leave. It is ErrBusy if too many
// follow that of the instance, and else an error only if ctx is done.
func (l *Logs) enter(ctx context.Context, id string) (leave func(), err error) {
	pause, ok := l.reserve(id)
	if !ok {
		return nil, ErrBusy
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		l.release(id)
		return nil, ctx.Err()
	}
	select {
	case l.followed <- struct{}{}:
		return func() { <-l.followed; l.release(id) }, nil
	case <-ctx.Done():
		l.release(id)
		return nil, ctx.Err()
	}
}

// reserve counts one more that follows the log of an instance. It returns how long to wait before
// that is opened: each opening costs the API server and a kubelet something. ok is false if there
// are too many.
func (l *Logs) reserve(id string) (pause time.Duration, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, f := range l.ofID { // few: they are forgotten soon
		if f.by == 0 && now.After(f.next) {
			delete(l.ofID, other)
		}
	}
	f := l.ofID[id]
	if f.by == maxOfOne {
		return 0, false
	}
	if f.next.After(now) {
		pause = f.next.Sub(now)
	}
	l.ofID[id] = following{f.by + 1, now.Add(pause + openPause)}
	return pause, true
}

func (l *Logs) release(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.ofID[id]
	f.by--
	l.ofID[id] = f
}

// awaitLog waits until the application's container has a log. began is false if the instance does
// not start any more.
func (l *Logs) awaitLog(ctx context.Context, id string) (container string, began bool) {
	inst, known := l.deps.Cache.Await(ctx, id, func(inst instance.Instance, known bool) bool {
		if pod, exists := l.deps.Cache.Pod(id); exists {
			container, began = instance.ReadableLog(pod)
		}
		return began || !known || inst.Status.Settled()
	})
	return container, began && known && !inst.Status.Settled()
}

// pass gives send the lines of a log. Lines that arrive together are given together.
func (l *Logs) pass(ctx context.Context, pod *corev1.Pod, log io.Reader, send func(string) error) error {
	reader := bufio.NewReaderSize(log, 8<<10)
	var lines strings.Builder
	for {
		line, err := readLine(reader)
		if line != "" {
			lines.WriteString(line + "\n")
		}
		if lines.Len() > 0 && (err != nil || reader.Buffered() == 0) {
			if err := send(strings.TrimSuffix(instance.PlainOutput(pod, lines.String()), "\n")); err != nil {
				return err
			}
			lines.Reset()
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.tell(ctx, pod, err)
			}
			return nil
		}
	}
}

// readLine reads a line, and drops what is beyond maxLine.
func readLine(reader *bufio.Reader) (string, error) {
	var line []byte
	for {
		piece, more, err := reader.ReadLine()
		line = append(line, piece[:min(len(piece), maxLine-len(line))]...)
		if err != nil || !more {
			return string(line), err
		}
	}
}

// tell logs what kept a log from being read, unless its time was over.
func (l *Logs) tell(ctx context.Context, pod *corev1.Pod, err error) {
	if ctx.Err() != nil {
		return
	}
	if apierrors.IsForbidden(err) {
		err = fmt.Errorf("the component start-logs gives the right to it: %w", err)
	}
	l.deps.Log.WarnContext(ctx, "the log of a start cannot be shown", "pod", pod.Name, "template", instance.TemplateOf(pod), "error", err)
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	// logPoll is how often replicas are looked for. It is far shorter than a replica
	// needs to become ready, so that none can end unseen.
	logPoll = 200 * time.Millisecond
	// logsEnd bounds the wait for the ends of the logs when the replicas are gone.
	logsEnd = 30 * time.Second
)

// logWatch follows the log of every container of the service from its first line to
// its last, because the log of a replica that is deleted, or has restarted twice,
// cannot be had later. It keeps them as files. A log that was not read to its end is a
// problem, too, unless its replica was deleted before it could become ready.
type logWatch struct {
	client kubernetes.Interface
	stop   context.CancelFunc
	looked chan struct{} // closed when no more replicas are looked for
	dir    string        // of the files, one for each log
	breaks bool          // logs may break off

	readers sync.WaitGroup
	mu      sync.Mutex
	logs    map[containerRun]*containerLog
	broken  []*containerLog // those that broke off, if they may
}

// containerRun is one start of a replica's container.
type containerRun struct {
	pod      types.UID
	restart  int32
	previous bool // read after it had ended
}

// containerLog is the log of one start of a container, or what of it was read.
type containerLog struct {
	name    string
	checker logChecker
	err     error // why it was not read to its end
}

// watchLogs follows the replicas' logs until end is called, and writes them to files in a folder.
// breaks says that they may break off.
func watchLogs(ctx context.Context, client kubernetes.Interface, dir string, breaks bool) *logWatch {
	w := &logWatch{client: client, looked: make(chan struct{}), dir: dir, breaks: breaks, logs: map[containerRun]*containerLog{}}
	ctx, w.stop = context.WithCancel(ctx)
	go func() {
		defer close(w.looked)
		for ctx.Err() == nil {
			// An error is repeated: the API server may be away for a moment.
			if pods, err := client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: replicaLabel}); err == nil {
				w.follow(context.WithoutCancel(ctx), pods.Items)
			}
			select {
			case <-ctx.Done():
			case <-time.After(logPoll):
			}
		}
	}()
	return w
}

// follow starts to read the logs of containers that have started since the last look.
func (w *logWatch) follow(ctx context.Context, pods []corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range pods {
		pod := &pods[i]
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Waiting != nil && status.LastTerminationState.Terminated == nil {
				continue // it has never started
			}
			w.start(ctx, pod, containerRun{pod.UID, status.RestartCount, false})
			if status.RestartCount > 0 {
				// It may have ended between two looks, or have been replaced while its
				// log was being opened.
				w.start(ctx, pod, containerRun{pod.UID, status.RestartCount - 1, true})
			}
		}
	}
}

// start reads a log, once.
func (w *logWatch) start(ctx context.Context, pod *corev1.Pod, run containerRun) {
	if _, known := w.logs[run]; known {
		return
	}
	log := &containerLog{name: fmt.Sprintf("%s, start %d", pod.Name, run.restart+1)}
	w.logs[run] = log
	w.readers.Go(func() {
		err := w.read(ctx, pod, run, &log.checker)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && w.breaks {
			// The next look follows it again, from its first line, if it is still there.
			delete(w.logs, run)
			if log.checker.lines > 0 {
				w.broken = append(w.broken, log)
			}
			return
		}
		log.checker.finish()
		log.err = err
	})
}

// read reads a log from its first line until the container ends.
func (w *logWatch) read(ctx context.Context, pod *corev1.Pod, run containerRun, to io.Writer) error {
	stream, err := w.client.CoreV1().Pods(Namespace).
		GetLogs(pod.Name, &corev1.PodLogOptions{Follow: !run.previous, Previous: run.previous}).Stream(ctx)
	if apierrors.IsNotFound(err) && !slices.ContainsFunc(pod.Status.Conditions, isReady) {
		return nil // it has never been used
	}
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer stream.Close()
	name := fmt.Sprintf("%s-%d.log", pod.Name, run.restart+1)
	if run.previous {
		name = "previous-" + name
	}
	file, err := os.Create(filepath.Join(w.dir, name))
	if err != nil {
		return fmt.Errorf("keep the log: %w", err)
	}
	defer file.Close()
	if _, err := io.Copy(io.MultiWriter(file, to), stream); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

func isReady(c corev1.PodCondition) bool {
	return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
}

// end waits until all logs have ended, and returns what is wrong with them. The
// replicas must be gone.
func (w *logWatch) end() (summary string, err error) {
	w.stop()
	<-w.looked
	ended := make(chan struct{})
	go func() {
		w.readers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(logsEnd):
		return "", fmt.Errorf("a replica's log has not ended within %s of the replica", logsEnd)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := 0
	var problems []error
	if len(w.logs) == 0 {
		problems = append(problems, errors.New("no log of a replica was read"))
	}
	for _, log := range slices.AppendSeq(slices.Clone(w.broken), maps.Values(w.logs)) {
		lines += log.checker.lines
		if problem := log.problem(); problem != nil {
			problems = append(problems, problem)
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return fmt.Sprintf("%d lines of %d logs were checked", lines, len(w.logs)), errors.Join(problems...)
}

// problem returns what is wrong with a log.
func (l *containerLog) problem() error {
	var all []string
	if l.err != nil {
		all = append(all, l.err.Error())
	}
	all = append(all, l.checker.complaints...)
	if l.checker.more > 0 {
		all = append(all, fmt.Sprintf("and %d more lines", l.checker.more))
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("the log of %s:\n  %s", l.name, strings.Join(all, "\n  "))
}

package kubetest

import (
	"sync"

	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"
)

// watch opens a watch that delivers copies, as an API server does. The fake's own watch delivers
// what was written between a list and it without copying, and informers change what they get.
func (s *Server) watch(action k8stesting.Action) (handled bool, w watch.Interface, err error) {
	opening, ok := action.(k8stesting.WatchActionImpl)
	if !ok {
		return false, nil, nil
	}
	source, err := s.Client.Tracker().Watch(action.GetResource(), action.GetNamespace(), opening.ListOptions)
	if err != nil {
		return true, nil, err
	}
	c := &copies{source: source, events: make(chan watch.Event), stopped: make(chan struct{})}
	go c.run()
	return true, c, nil
}

// copies is a watch that delivers copies of what another one does.
type copies struct {
	source  watch.Interface
	events  chan watch.Event
	stopped chan struct{}
	stop    sync.Once
}

// run delivers events until the watch is stopped.
func (c *copies) run() {
	defer close(c.events)
	for event := range c.source.ResultChan() {
		event.Object = event.Object.DeepCopyObject()
		select {
		case c.events <- event:
		case <-c.stopped:
			return
		}
	}
}

// Stop ends the watch.
func (c *copies) Stop() {
	c.stop.Do(func() { close(c.stopped) })
	c.source.Stop()
}

// ResultChan returns the events.
func (c *copies) ResultChan() <-chan watch.Event { return c.events }

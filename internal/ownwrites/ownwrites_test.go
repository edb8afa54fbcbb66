package ownwrites_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/ownwrites"
)

// pod reads name@version-uid, with a ! at the end for a pod that is being deleted.
func pod(text string) *corev1.Pod {
	p := &corev1.Pod{}
	text, deleting := strings.CutSuffix(text, "!")
	if deleting {
		p.DeletionTimestamp = &metav1.Time{}
	}
	text, uid, _ := strings.Cut(text, "-")
	p.UID = types.UID(uid)
	p.Name, p.ResourceVersion, _ = strings.Cut(text, "@")
	return p
}

// write is the opposite of pod.
func write(p *corev1.Pod) string {
	text := p.Name + "@" + p.ResourceVersion + "-" + string(p.UID)
	if p.DeletionTimestamp != nil {
		text += "!"
	}
	return text
}

func TestOwnWritesAreReadUntilTheWatchHasThem(t *testing.T) {
	for _, test := range []struct {
		name   string
		events string // in order: add, delivered and gone, each followed by a pod
		later  time.Duration
		cached string // "" for nothing
		lacks  bool   // the list lacks the cached pod
		want   string
	}{
		{name: "nothing written", cached: "a@5-x", want: "a@5-x"},
		{name: "not delivered yet", events: "add a@9-x", cached: "a@5-x", want: "a@9-x"},
		{name: "more digits are newer", events: "add a@10-x", cached: "a@9-x", want: "a@10-x"},
		{name: "created, and not in the cache", events: "add a@9-x", want: "a@9-x"},
		{name: "the cache has it", events: "add a@9-x", cached: "a@9-x", want: "a@9-x"},
		{name: "the cache has something newer", events: "add a@9-x", cached: "a@12-x", want: "a@12-x"},
		{name: "written twice", events: "add a@9-x add a@11-x", cached: "a@5-x", want: "a@11-x"},
		{name: "answered in the wrong order", events: "add a@11-x add a@9-x", cached: "a@5-x", want: "a@11-x"},
		{name: "an older version is delivered", events: "add a@9-x delivered a@7-x", cached: "a@7-x", want: "a@9-x"},
		{name: "delivered, and deleted since", events: "add a@9-x delivered a@9-x"},
		{name: "deleted before it was delivered", events: "add a@9-x gone a@5-x"},
		{name: "deleted before the write was answered", events: "gone a@10-x add a@9-x"},
		{name: "deleted before the delete was answered", events: "gone a@10-x add a@9-x!"},
		{name: "another pod of the name is gone", events: "add a@9-x gone a@5-y", want: "a@9-x"},
		{name: "made again after it was gone", events: "gone a@5-y add a@9-x", want: "a@9-x"},
		{name: "deleted by us, and a later change is delivered", events: "add a@5-x! delivered a@7-x", cached: "a@7-x", want: "a@5-x!"},
		{name: "deleted by us, and a change is answered later", events: "add a@5-x! add a@7-x", cached: "a@5-x", want: "a@5-x!"},
		{name: "deleted by us", events: "add a@5-x!", cached: "a@5-x", want: "a@5-x!"},
		{name: "deleted by us, and the cache knows", events: "add a@5-x!", cached: "a@7-x!", want: "a@7-x!"},
		{name: "the list lacks what the cache has", events: "add a@9-x", cached: "a@12-x", lacks: true, want: "a@12-x"},
		{name: "the list lacks an older one", events: "add a@9-x", cached: "a@5-x", lacks: true, want: "a@9-x"},
		{name: "created, and never delivered", events: "add a@9-x", later: 3 * time.Minute},
		{name: "changed, and not delivered for long", events: "add a@9-x", later: time.Hour, cached: "a@5-x", want: "a@9-x"},
		{name: "versions that cannot be compared", events: "add a@y-x", cached: "a@5-x", want: "a@5-x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)
			var cached *corev1.Pod
			lookup := func(string) (*corev1.Pod, bool) { return cached, cached != nil }
			store := ownwrites.New(lookup, func() time.Time { return now })
			event := map[string]func(*corev1.Pod){"add": store.Add, "delivered": store.Delivered, "gone": store.Gone}
			for words := range slices.Chunk(strings.Fields(test.events), 2) {
				event[words[0]](pod(words[1]))
			}
			if test.cached != "" {
				cached = pod(test.cached)
			}
			now = now.Add(test.later)
			if got, ok := store.Get("a"); ok != (test.want != "") || ok && write(got) != test.want {
				t.Errorf("Get: got %v %v, want %q", got, ok, test.want)
			}
			listed, want := []*corev1.Pod{pod("other@3-z")}, []string{"other@3-z"}
			if cached != nil && !test.lacks {
				listed = append(listed, cached)
			}
			if test.want != "" && !(test.lacks && test.want == test.cached) {
				want = append(want, test.want)
			}
			var all []string
			for _, p := range store.Overlay(func() []*corev1.Pod { return listed }) {
				all = append(all, write(p))
			}
			slices.Sort(all)
			slices.Sort(want)
			if !slices.Equal(all, want) {
				t.Errorf("Overlay: got %q, want %q", all, want)
			}
		})
	}
}

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

// pod is written name@version, with -uid behind it for another pod of the same
// name, and with a ! at the end for one that is being deleted.
func pod(text string) *corev1.Pod {
	text, deleting := strings.CutSuffix(text, "!")
	text, uid, _ := strings.Cut(text, "-")
	name, version, _ := strings.Cut(text, "@")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version, UID: types.UID(uid)}}
	if deleting {
		p.DeletionTimestamp = &metav1.Time{}
	}
	return p
}

func text(p *corev1.Pod) string {
	s := p.Name + "@" + p.ResourceVersion
	if p.UID != "" {
		s += "-" + string(p.UID)
	}
	if p.DeletionTimestamp != nil {
		s += "!"
	}
	return s
}

func TestOwnWritesAreReadUntilTheWatchHasThem(t *testing.T) {
	for _, test := range []struct {
		name      string
		added     []string
		delivered []string
		gone      []string
		later     time.Duration
		cached    string // "" for nothing
		unlisted  bool   // the list that is overlaid lacks the cached one
		want      string
	}{
		{name: "nothing written", cached: "a@5", want: "a@5"},
		{name: "not delivered yet", added: []string{"a@9"}, cached: "a@5", want: "a@9"},
		{name: "more digits are newer", added: []string{"a@10"}, cached: "a@9", want: "a@10"},
		{name: "created, and not in the cache", added: []string{"a@9"}, want: "a@9"},
		{name: "the cache has it", added: []string{"a@9"}, cached: "a@9", want: "a@9"},
		{name: "the cache has something newer", added: []string{"a@9"}, cached: "a@12", want: "a@12"},
		{name: "written twice", added: []string{"a@9", "a@11"}, cached: "a@5", want: "a@11"},
		{name: "returned in the wrong order", added: []string{"a@11", "a@9"}, cached: "a@5", want: "a@11"},
		{name: "an older version is delivered", added: []string{"a@9"}, delivered: []string{"a@7"}, cached: "a@7", want: "a@9"},
		{name: "delivered, and deleted since", added: []string{"a@9"}, delivered: []string{"a@9"}},
		{name: "deleted before it was delivered", added: []string{"a@9-x"}, gone: []string{"a@5-x"}},
		{name: "another of the name is gone", added: []string{"a@9-x"}, gone: []string{"a@5-y"}, want: "a@9-x"},
		{name: "deleted by us", added: []string{"a@5!"}, cached: "a@5", want: "a@5!"},
		{name: "deleted by us, and the cache knows", added: []string{"a@5!"}, cached: "a@7!", want: "a@7!"},
		{name: "the list lacks what the cache has", added: []string{"a@9"}, cached: "a@12", unlisted: true, want: "a@12"},
		{name: "the list lacks an older one", added: []string{"a@9"}, cached: "a@5", unlisted: true, want: "a@9"},
		{name: "never delivered", added: []string{"a@9"}, later: 3 * time.Minute},
		{name: "versions that cannot be compared", added: []string{"a@x"}, cached: "a@5", want: "a@5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)
			var cached *corev1.Pod
			if test.cached != "" {
				cached = pod(test.cached)
			}
			store := ownwrites.New(func(string) (*corev1.Pod, bool) { return cached, cached != nil }, func() time.Time { return now })
			for _, p := range test.added {
				store.Add(pod(p))
			}
			for _, p := range test.delivered {
				store.Delivered(pod(p))
			}
			for _, p := range test.gone {
				store.Gone(pod(p))
			}
			now = now.Add(test.later)
			list := []*corev1.Pod{pod("other@3")}
			want := []string{"other@3"}
			if cached != nil && !test.unlisted {
				list = append(list, cached)
			}
			if test.want != "" && !(test.unlisted && test.want == test.cached) {
				want = append(want, test.want)
			}
			got, ok := store.Get("a")
			if ok != (test.want != "") || ok && text(got) != test.want {
				t.Errorf("Get: got %v %v, want %q", got, ok, test.want)
			}
			var all []string
			for _, p := range store.Overlay(list) {
				all = append(all, text(p))
			}
			slices.Sort(all)
			slices.Sort(want)
			if !slices.Equal(all, want) {
				t.Errorf("Overlay: got %q, want %q", all, want)
			}
		})
	}
}

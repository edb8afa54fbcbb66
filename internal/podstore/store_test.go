package podstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// heard is a store and what a handler of it was told, by the numbers of the pods.
type heard struct {
	*Store
	told []string
}

func newHeard(t testing.TB) *heard {
	h := &heard{Store: New(testRules(), kubetest.ClockAt(kubetest.Noon))}
	h.handle(t)
	return h
}

func (h *heard) handle(t testing.TB) {
	t.Helper()
	if err := h.Handle(
		func(before, record *Record) {
			h.told = append(h.told, fmt.Sprintf("%s>%s", number(before), number(record)))
		},
		func(record *Record) { h.told = append(h.told, "-"+number(record)) },
	); err != nil {
		t.Fatal(err)
	}
}

// number names a version of a pod by the number of its id and its resourceVersion.
func number(r *Record) string {
	if r == nil {
		return ""
	}
	return strings.TrimLeft(r.ID, "0") + "." + r.GetResourceVersion()
}

func numbers(records []*Record) string {
	var all []string
	for _, r := range records {
		all = append(all, number(r))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (h *heard) want(t testing.TB, after string, told ...string) {
	t.Helper()
	slices.Sort(h.told) // those of one change are in any order
	if !slices.Equal(h.told, told) {
		t.Errorf("after %s: told are %q, want %q", after, h.told, told)
	}
	h.told = nil
}

func pod(n, version int, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := kubetest.Pod(kubetest.ID(n), kubetest.Noon, changes...)
	p.ResourceVersion = fmt.Sprint(version)
	return p
}

// Handlers hear of every version once, in order, whether the store is told of it alone or in
// a list; and a handler that comes later, of what there is.
func TestHandlers(t *testing.T) {
	h := newHeard(t)
	do := func(after string, err error, told ...string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", after, err)
		}
		h.want(t, after, told...)
	}
	if h.Synced() {
		t.Error("synced before anything was read")
	}
	early, err := h.Transformer()(pod(2, 1))
	if err != nil {
		t.Fatal(err)
	}
	do("the first read", h.Replace([]any{pod(1, 1), early}, "1"), ">1.1", ">2.1")
	if !h.Synced() {
		t.Error("not synced although everything was read")
	}
	do("a new pod", h.Add(pod(3, 2)), ">3.2")
	do("a change", h.Update(pod(3, 3)), "3.2>3.3")
	do("the end of a pod", h.Delete(pod(1, 4)), "-1.4")
	do("the end of one that is unknown", h.Delete(pod(9, 4)))
	do("a read after a broken watch", h.Replace([]any{pod(3, 5), pod(4, 5)}, "5"), "-2.1", "3.3>3.5", ">4.5")
	do("a resync", h.Resync())
	h.handle(t)
	h.want(t, "a second handler", ">3.5", ">4.5")
	for _, err := range []error{h.Add("no pod"), h.Delete("no pod"), h.Replace([]any{"no pod"}, "")} {
		if err == nil {
			t.Error("a text is taken for a pod")
		}
	}
	if got := numbers(h.All()); got != "3.5 4.5" {
		t.Errorf("all are %s", got)
	}
}

// Whatever changes, records are found by what they have, and by nothing that they had.
func TestLookups(t *testing.T) {
	warm := kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm)
	ann, ben := kubetest.WithLabel(instance.ClientLabel, "ann"), kubetest.WithLabel(instance.ClientLabel, "ben")
	at := func(ip string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.PodIP = ip } }
	h := newHeard(t)
	for _, step := range []struct {
		name                string
		pods                []*corev1.Pod // all that there are
		ann, ben, warm, odd string
		shared              string
	}{
		{"none", nil, "", "", "", "", ""},
		{"some", []*corev1.Pod{pod(1, 1, ann), pod(2, 1, ann, at("10.0.0.7")), pod(3, 1, ben, kubetest.OfTemplate("odd")), pod(4, 1, warm)}, "1.1 2.1", "3.1", "4.1", "3.1", "1.1 2.1"},
		{"one is claimed, one moves", []*corev1.Pod{pod(1, 1, ann), pod(2, 2, ann, at("10.0.0.99")), pod(3, 1, ben, kubetest.OfTemplate("odd")), pod(4, 2, ben)}, "1.1 2.2", "3.1 4.2", "", "3.1", ""},
		{"one fails at a shared address", []*corev1.Pod{pod(1, 2, ann, kubetest.Broken), pod(2, 3, ann, at("10.0.0.7"))}, "1.2 2.3", "", "", "", ""},
		{"the first is gone", []*corev1.Pod{pod(2, 3, ann, at("10.0.0.7"))}, "2.3", "", "", "", ""},
		{"all are gone", nil, "", "", "", "", ""},
	} {
		var list []any
		for _, p := range step.pods {
			list = append(list, p)
		}
		if err := h.Replace(list, ""); err != nil {
			t.Fatal(err)
		}
		var shared []*Record
		for _, r := range h.All() {
			if got, ok := h.Get(r.GetName()); !ok || got != r {
				t.Errorf("%s: %s is not found by its name", step.name, number(r))
			}
			if h.SharesAddress(r) {
				shared = append(shared, r)
			}
		}
		for what, pair := range map[string][2]string{
			"of ann": {numbers(h.OfClient("ann")), step.ann}, "of ben": {numbers(h.OfClient("ben")), step.ben},
			"warm": {numbers(h.Warm(kubetest.TemplateName)), step.warm}, "of odd": {numbers(h.OfTemplate("odd")), step.odd},
			"with a shared address": {numbers(shared), step.shared},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %s are %q, want %q", step.name, what, pair[0], pair[1])
			}
		}
		if got := h.WarmTemplates(); len(got) > 0 != (step.warm != "") {
			t.Errorf("%s: templates with warm pods are %q", step.name, got)
		}
	}
	if len(h.byName)+len(h.byTemplate)+len(h.warm)+len(h.byClient)+len(h.addresses) > 0 {
		t.Errorf("something is left: %v %v %v %v %v", h.byName, h.byTemplate, h.warm, h.byClient, h.addresses)
	}
}

// A version that was written, and that the store does not have, shares the address of others.
func TestSharesAddressOfAWrittenPod(t *testing.T) {
	h := newHeard(t)
	own := pod(1, 1)
	other := pod(2, 1, func(p *corev1.Pod) { p.Status.PodIP = own.Status.PodIP })
	if h.SharesAddress(h.Record(own)) {
		t.Error("it shares its address with nothing")
	}
	_ = h.Add(own)
	if h.SharesAddress(h.Record(own)) {
		t.Error("it shares its address with itself")
	}
	if !h.SharesAddress(h.Record(other)) {
		t.Error("it does not share its address")
	}
}

// A change takes the old version away before it adds the new one. Nobody may see that: for
// this moment, another pod would seem to have its address alone.
func TestSharesAddressDuringAChange(t *testing.T) {
	h := newHeard(t)
	other := pod(2, 1, func(p *corev1.Pod) { p.Status.PodIP = pod(1, 1).Status.PodIP })
	_ = h.Add(other)
	_ = h.Add(pod(1, 1))
	record, _ := h.Get(pod(1, 1).Name)
	h.mu.Lock()
	h.unindex(record)
	if !h.anyDoubled.Load() {
		t.Error("half a change can be seen")
	}
	h.changed()
	if left, _ := h.Get(other.Name); h.SharesAddress(left) {
		t.Error("the change cannot be seen")
	}
}

func TestHandleAfterTheEnd(t *testing.T) {
	h := newHeard(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Run(ctx, &cache.ListWatch{})
	if err := h.Handle(func(*Record, *Record) {}, func(*Record) {}); err == nil {
		t.Error("got no error for a handler that will never be called")
	}
}

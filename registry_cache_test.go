package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"
)

func TestRegistryAnswersAreFreshForAWhile(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.wantImage(t, "r/p:v1")
	f.answers(registryServes("r/p:v2"))
	f.pass(registry.RegistryFresh - time.Millisecond)
	f.wantImage(t, "r/p:v1")
	f.wantQuestions(t, 1)
	f.pass(time.Millisecond)
	f.wantImage(t, "r/p:v2")
	f.wantQuestions(t, 2)
	f.wantResults(t, "ok", 2)
}

func TestRegistryFailureIsRememberedForAMoment(t *testing.T) {
	f := newRegistryFixture(t, registryCode(500))
	for range 3 {
		f.wantError(t, podtemplate.ErrUnavailable)
	}
	f.wantQuestions(t, 1)
	f.answers(registryServes("r/p:v1"))
	f.pass(registry.RegistryRetry)
	f.wantImage(t, "r/p:v1")
}

func TestRegistryCopyIsUsedWhileItFails(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.wantImage(t, "r/p:v1")
	f.answers(registryCode(500))
	for elapsed := registry.RegistryFresh; elapsed < registry.RegistryStale; elapsed += registry.RegistryFresh {
		f.pass(registry.RegistryFresh)
		f.wantImage(t, "r/p:v1")
	}
	f.wantQuestions(t, int(registry.RegistryStale/registry.RegistryFresh)) // asked again each time
	if got := strings.Count(f.logged.String(), "level=WARN"); got != 1 {
		t.Errorf("got %d warnings, want 1: %s", got, &f.logged)
	}
	if !strings.Contains(f.logged.String(), "500") || !strings.Contains(f.logged.String(), "template=p") {
		t.Errorf("the log does not say what fails: %s", &f.logged)
	}
	f.pass(registry.RegistryFresh)
	f.wantError(t, podtemplate.ErrUnavailable) // the copy is too old by now

	f.answers(registryServes("r/p:v2"))
	f.pass(registry.RegistryRetry)
	f.wantImage(t, "r/p:v2")
	f.answers(registryCut)
	f.pass(registry.RegistryFresh)
	f.wantImage(t, "r/p:v2")
	if got := strings.Count(f.logged.String(), "level=WARN"); got != 2 {
		t.Errorf("got %d warnings, want one more for the second outage: %s", got, &f.logged)
	}
}

// A copy may become too old between two questions.
func TestRegistryCopyEndsOnTime(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.wantImage(t, "r/p:v1")
	f.answers(registryCode(500))
	f.pass(registry.RegistryStale - time.Millisecond)
	f.wantImage(t, "r/p:v1")
	f.pass(time.Millisecond)
	f.wantError(t, podtemplate.ErrUnavailable)
	f.wantQuestions(t, 2)
}

func TestRegistryTakesATemplateBack(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"unknown": http.NotFound, "wrong": registryBody(`{"name": "p"}`)} {
		t.Run(name, func(t *testing.T) {
			f := newRegistryFixture(t, registryServes("r/p:v1"))
			f.wantImage(t, "r/p:v1")
			f.answers(answer)
			f.pass(registry.RegistryFresh)
			if _, err := f.Template(t.Context(), "p"); err == nil || errors.Is(err, podtemplate.ErrUnavailable) {
				t.Fatalf("got %v, want the registry's own word", err)
			}
			f.answers(registryCode(500))
			f.pass(registry.RegistryRetry)
			f.wantError(t, podtemplate.ErrUnavailable) // and not the copy of what is no more
		})
	}
}

func TestRegistryIsAskedOnceByMany(t *testing.T) {
	f := newRegistryFixture(t, nil)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // panics on a second question
		<-release
		registryServes("r/p:v1")(w, r)
	})

	// The first client goes away while the registry thinks.
	ctx, leave := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() { _, _ = f.Template(ctx, "p") })
	awaitRegistry(t, arrived)
	leave()

	impatient, stop := context.WithCancel(t.Context())
	stop()
	if _, err := f.Template(impatient, "p"); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that went away got %v", err)
	}

	for range 50 {
		clients.Go(func() {
			if template, err := f.Template(t.Context(), "p"); err != nil || template.Template.Spec.Containers[0].Image != "r/p:v1" {
				t.Errorf("got %v, %v", template, err)
			}
		})
	}
	close(release)
	clients.Wait()
	f.wantQuestions(t, 1)
}

func TestRegistryNamesDoNotWaitForEachOther(t *testing.T) {
	f := newRegistryFixture(t, nil)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			close(arrived)
			<-release
		}
		registryServes("r/p:v1")(w, r)
	})
	var client sync.WaitGroup
	client.Go(func() {
		if _, err := f.Template(t.Context(), "slow"); err != nil {
			t.Error(err)
		}
	})
	awaitRegistry(t, arrived)
	f.wantImage(t, "r/p:v1")
	close(release)
	client.Wait()
}

func TestRegistryRemembersNoMoreThanItMay(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.wantImage(t, "r/p:v1")
	f.answers(http.NotFound)
	for i := range registry.MaxRegistryEntries + 100 {
		f.pass(time.Millisecond)
		if _, err := f.Template(t.Context(), fmt.Sprintf("made-up-%d", i)); !errors.Is(err, podtemplate.ErrUnknown) {
			t.Fatal(err)
		}
	}
	if got := len(f.Entries); got != registry.MaxRegistryEntries {
		t.Errorf("got %d entries, want %d", got, registry.MaxRegistryEntries)
	}
	// Names that are made up do not drive out a copy.
	f.answers(registryCode(500))
	f.pass(registry.RegistryFresh)
	f.wantImage(t, "r/p:v1")

	// The oldest went first.
	if _, ok := f.Entries["made-up-0"]; ok {
		t.Error("the oldest is still there")
	}
	if _, ok := f.Entries[fmt.Sprintf("made-up-%d", registry.MaxRegistryEntries+99)]; !ok {
		t.Error("the newest is gone")
	}
}

func TestRegistryForgetsTheCopyNotUsedForLongest(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	for i := range registry.MaxRegistryEntries {
		f.Entries[fmt.Sprint("copy-", i)] = &registry.RegistryEntry{Used: f.at.Add(time.Duration(i) * time.Second)}
	}
	for _, entry := range f.Entries {
		entry.Template, _ = registry.RegistryTemplate{Name: "x", ImageSource: "x"}.PodTemplate("somewhere")
	}
	f.Entries["copy-0"].Asking = make(chan struct{}) // somebody waits for this one
	f.wantImage(t, "r/p:v1")
	_, zero := f.Entries["copy-0"]
	_, one := f.Entries["copy-1"]
	_, two := f.Entries["copy-2"]
	if !zero || one || !two {
		t.Errorf("copy-0, copy-1, copy-2 are there: %v %v %v, want true false true", zero, one, two)
	}
}

// A bug in the middle of a question must not be the end of all questions.
func TestRegistryOutlivesAPanic(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	client := f.Client
	f.Client = nil
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		_, _ = f.Template(t.Context(), "p")
	}()
	f.Client = client
	f.wantError(t, podtemplate.ErrUnavailable)
	f.pass(registry.RegistryRetry)
	f.wantImage(t, "r/p:v1")
}

func awaitRegistry(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(registryWait):
		t.Fatal("the registry was not asked")
	}
}

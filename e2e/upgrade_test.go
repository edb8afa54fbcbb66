//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/earlier"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// longAgo is from how many commits back a long run upgrades as well.
	longAgo = 50
	// idleTimeout is the cull timeout of the instance that nobody uses. It ends while
	// replicas are replaced, or soon after.
	idleTimeout = 15 * time.Second
	// idleMargin bounds how much later it ends: the lag, the hold of up to three leaders and
	// the times between them, and a busy machine.
	idleMargin = time.Minute
	// warmSize is the size of the pool of echo-warm.
	warmSize = 3
)

// TestUpgrade installs the version before this one, beside the service of the other tests.
// It upgrades it to this version and rolls back, with the commands of docs/operate.md, while
// clients and visitors go on. What either version has written, the other must serve.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	commit, err := earlier.Previous(t.Context(), "..")
	require.NoError(t, err)
	commits := []string{commit}
	if !testing.Short() {
		commit, err := earlier.Ago(t.Context(), "..", longAgo)
		require.NoError(t, err)
		commits = append(commits, commit)
	}
	for _, commit := range commits {
		version, err := earlier.Checkout(t.Context(), "..", commit, t.TempDir())
		require.NoError(t, err)
		t.Run("from "+version.Name(), func(t *testing.T) { upgradeFrom(t, script, version) })
	}
}

func upgradeFrom(t *testing.T, script *commands.Script, version earlier.Version) {
	const tag = "earlier"
	loadEarlier(t, version, tag)
	old, current := placeManifests(t, version.Dir, tag), placeManifests(t, "..", "dev")
	s := installEarlier(t, script, old)
	defer s.printLogs(t)
	s.change(t, "Upgrade with kubectl", current, "dev")
	s.change(t, "Roll back with kubectl", old, tag)
}

// change does what a section of docs/operate.md says, and checks that nobody notices more
// of it than the page tells. The manifests are in dir, with the image of the tag.
func (s *upgradable) change(t *testing.T, section, dir, tag string) {
	t.Helper()
	used, stopped := s.launch(t, "echo", harness.LongTimeout), s.launch(t, "echo", harness.LongTimeout)
	s.api.Do(t, http.MethodDelete, "/applications/echo/"+stopped.ID, "", "Authorization", s.api.Key()).Decode(t, &harness.Status{})
	s.kept = append(s.kept, stopped, s.launch(t, "echo", harness.LongTimeout), s.launch(t, "echo-warm", harness.LongTimeout))
	s.api.Do(t, http.MethodPost, "/preload/echo", "", "Authorization", s.api.Key()).Decode(t, &struct{}{})
	key := rand.Text()
	keyed := s.launchKeyed(t, key)
	before := s.look(t)
	idle := s.launch(t, "echo", idleTimeout)

	load := s.startLoad(t, used)
	s.follow(t, section, dir)
	s.awaitReplaced(t, tag)
	load.end(t, section)

	assert.Equal(t, keyed, s.launchKeyed(t, key), "the same idempotency key")
	s.compare(t, before)
	s.checkPool(t, before)
	s.checkCulled(t, idle)
	for _, launched := range load.launched {
		status := s.api.Status(t, "echo", launched)
		assert.Contains(t, []string{"deployed", "deleted"}, status.Status, "launched during the %s: %+v", section, status)
	}
}

// launchKeyed launches an instance with an idempotency key, and returns its id.
func (s *upgradable) launchKeyed(t *testing.T, key string) (id string) {
	t.Helper()
	var launched struct{ ID string }
	body := fmt.Sprintf(`{"template-name": "echo", "cull-timeout": %d}`, harness.LongTimeout.Milliseconds())
	s.api.Do(t, http.MethodPost, "/applications/", body, "Idempotency-Key", key).Decode(t, &launched)
	return launched.ID
}

// launchedInstance is an instance of the installation.
type launchedInstance struct {
	Template, ID string
	at           time.Time // just before the request
}

// launch launches an instance and waits until it is deployed.
func (s *upgradable) launch(t *testing.T, template string, timeout time.Duration) launchedInstance {
	t.Helper()
	launched := launchedInstance{Template: template, at: time.Now()}
	body := fmt.Sprintf(`{"template-name": %q, "cull-timeout": %d}`, template, timeout.Milliseconds())
	s.api.Do(t, http.MethodPost, "/applications/", body).Decode(t, &launched)
	harness.Until(t, harness.StartTimeout, "the instance is deployed", func(context.Context) error {
		if status := s.api.Status(t, template, launched.ID); status.Status != "deployed" {
			return fmt.Errorf("it is %+v", status)
		}
		return nil
	})
	return launched
}

// picture is what clients and operators see.
type picture struct {
	statuses map[string]harness.Status // of what is kept, by id
	warm     map[types.UID]corev1.Pod
	preload  string               // its status
	sets     map[string]types.UID // its DaemonSets
}

// look waits until the pool and the preload are complete, and returns what there is.
func (s *upgradable) look(t *testing.T) picture {
	t.Helper()
	seen := picture{warm: s.awaitWarm(t), statuses: map[string]harness.Status{}, sets: map[string]types.UID{}}
	harness.Until(t, poolWait, "the preload", func(ctx context.Context) error {
		var status struct{ Status string }
		answer := s.api.Do(t, http.MethodGet, "/preload/echo", "", "Authorization", s.api.Key())
		answer.Decode(t, &status)
		if seen.preload = string(answer.Body); status.Status != "completed" {
			return fmt.Errorf("it is %s", answer.Body)
		}
		return nil
	})
	sets, err := suite.Kube.Client.AppsV1().DaemonSets(upgradeInstances).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, set := range sets.Items {
		seen.sets[set.Name] = set.UID
	}
	for _, instance := range s.kept {
		seen.statuses[instance.ID] = s.api.Status(t, instance.Template, instance.ID)
	}
	return seen
}

// compare checks that the key is valid, and that all instances, living and ended, are as
// they were.
func (s *upgradable) compare(t *testing.T, before picture) {
	t.Helper()
	listed := map[string]harness.Status{}
	for _, status := range s.api.List(t, "") {
		listed[status.ID] = status
	}
	for id, was := range before.statuses {
		assert.Equal(t, was, s.api.Status(t, was.TemplateName, id))
		if was.Status == "deployed" {
			assert.Equal(t, was, listed[id])
			assert.Equal(t, upgradeHost+"/user/"+id, was.Location)
		} else {
			assert.Equal(t, "Stopped", was.Reason)
		}
	}
}

// checkPool checks that launches take the warm pods that there were, and that the preload
// has stayed, unless the versions make other pods of the template.
func (s *upgradable) checkPool(t *testing.T, before picture) {
	t.Helper()
	const hash = "binder-project.org/template-hash"
	claimed := s.launch(t, "echo-warm", harness.LongTimeout)
	pod := s.pod(t, claimed)
	after := s.look(t)
	s.kept = append(s.kept, claimed)
	sameTemplate := false
	for uid, was := range before.warm {
		if sameTemplate = was.Labels[hash] == pod.Labels[hash]; sameTemplate && uid != pod.UID {
			assert.Contains(t, after.warm, uid, "a warm pod was replaced")
		}
	}
	if !sameTemplate {
		t.Logf("the versions differ in the pods of echo-warm")
		return
	}
	assert.Contains(t, before.warm, pod.UID, "the launch took no warm pod")
	assert.Equal(t, before.sets, after.sets, "the preload was made again")
	assert.Equal(t, before.preload, after.preload)
}

func (s *upgradable) pod(t *testing.T, instance launchedInstance) corev1.Pod {
	t.Helper()
	pods, err := suite.Kube.Client.CoreV1().Pods(upgradeInstances).List(t.Context(), metav1.ListOptions{LabelSelector: "binder-project.org/id=" + instance.ID})
	require.NoError(t, err)
	require.Len(t, pods.Items, 1)
	return pods.Items[0]
}

// awaitWarm waits until the pool of echo-warm is full and ready. It returns its pods.
func (s *upgradable) awaitWarm(t *testing.T) map[types.UID]corev1.Pod {
	t.Helper()
	ready := map[types.UID]corev1.Pod{}
	harness.Until(t, poolWait, "the pool", func(ctx context.Context) error {
		pods, err := suite.Kube.Client.CoreV1().Pods(upgradeInstances).List(ctx, metav1.ListOptions{LabelSelector: "binder-project.org/pool=warm"})
		if err != nil {
			return err
		}
		clear(ready)
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready[pod.UID] = pod
			}
		}
		if len(ready) != warmSize || len(pods.Items) != warmSize {
			return fmt.Errorf("%d of %d warm pods are ready", len(ready), len(pods.Items))
		}
		return nil
	})
	return ready
}

// checkCulled checks that an instance ended when it had been idle for its cull timeout, or a
// little later.
func (s *upgradable) checkCulled(t *testing.T, idle launchedInstance) {
	t.Helper()
	var ended time.Time
	harness.Until(t, idleTimeout+idleMargin, "the idle instance is culled", func(ctx context.Context) error {
		if status := s.api.Status(t, idle.Template, idle.ID); status.Status != "deleted" || status.Reason != "Culled" {
			return fmt.Errorf("it is %+v", status)
		}
		tombstones, err := suite.Kube.Client.CoreV1().Events(upgradeInstances).List(ctx, metav1.ListOptions{LabelSelector: "binder-project.org/id=" + idle.ID})
		if err == nil && len(tombstones.Items) != 1 {
			err = errors.New("it has no tombstone")
		}
		if err == nil {
			ended = tombstones.Items[0].LastTimestamp.Time
		}
		return err
	})
	assert.WithinRange(t, ended, idle.at.Add(idleTimeout).Truncate(time.Second), idle.at.Add(idleTimeout+idleMargin))
}

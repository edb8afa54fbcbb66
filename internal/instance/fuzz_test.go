package instance_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// FuzzFromPod reads a pod with any labels, annotations and statuses, and any Warning Events
// about it, a while after Noon. What clients are told of it is bounded, agrees with itself,
// and stays the same once only the read model's part of the pod is left.
func FuzzFromPod(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no pods are recorded: ", err)
	}
	for _, file := range files {
		moments := readMoments(f, strings.TrimSuffix(filepath.Base(file), ".json"))
		last := moments[len(moments)-1]
		f.Add(encode(f, last.Pod), encode(f, last.Warnings), 600)
	}
	long := strings.Repeat("x", 600)
	for _, pod := range []string{
		`{}`, `{"status": {"containerStatuses": [{}], "initContainerStatuses": [{"name": "x", "state": {"terminated": {"exitCode": 1}}}]}}`,
		`{"metadata": {"annotations": {"binder-project.org/port": "` + long + `"}}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "x"}}`,
		`{"status": {"phase": "Failed", "reason": "` + long + `", "message": "` + long + `"}}`,
		`{"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"name": "` + long + `", "image": "` + long + `", "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "` + long + `"}}}]}}`,
		`{"spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": [{"name": "` + long + `", "restartCount": -2147483648, "state": {"terminated": {"exitCode": 137, "message": "\u0000"}}}]}}`,
		`{"metadata": {"annotations": {"binder-project.org/restarts-before": "2147483647"}}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "x", "containerStatuses": [{"restartCount": -2147483648}]}}`,
	} {
		f.Add([]byte(pod), []byte(`[]`), 0)
	}
	f.Fuzz(func(t *testing.T, podJSON, warningsJSON []byte, seconds int) {
		m := moment{}
		if json.Unmarshal(podJSON, &m.Pod) != nil || json.Unmarshal(warningsJSON, &m.Warnings) != nil {
			return
		}
		var warnings []*corev1.Event
		for i := range m.Warnings {
			warnings = append(warnings, &m.Warnings[i])
		}
		after := time.Duration(seconds%1e9) * time.Second
		inst := FromPod(&m.Pod, warnings, kubetest.Noon.Add(after), kubetest.StartTimeout)
		if inst.ID != m.Pod.Labels[IDLabel] || inst.Alive() == (inst.Status == StatusFailed || inst.Status == StatusDeleted) {
			t.Errorf("got %+v", inst)
		}
		if (inst.Address != "") != (inst.Status == StatusDeployed) {
			t.Errorf("%s, with the address %q", inst.Status, inst.Address)
		}
		if !inst.FailedAt.IsZero() && inst.Status != StatusFailed || inst.Restarts < 0 || (inst.Restarts == 0) != (inst.RestartReason == "") {
			t.Errorf("got %+v", inst)
		}
		if inst.Reason == "" && !inst.Alive() || len(inst.Reason) > 64 || strings.ContainsAny(inst.Reason, " \n<") {
			t.Errorf("%s, with the reason %q", inst.Status, inst.Reason)
		}
		sentences, output := CutLastOutput(inst.Message)
		for _, text := range []string{sentences, strings.TrimPrefix(output, "…"), inst.Detail, inst.RestartReason} {
			if utf8.RuneCountInString(text) > 512 || !utf8.ValidString(text) {
				t.Errorf("%d characters: %q", utf8.RuneCountInString(text), text)
			}
		}
		if known := FailureLabel(inst.Reason); known == "" || len(known) > 64 {
			t.Errorf("the failure counts as %q", known)
		}
		Failure(&m.Pod)
		for i := range warnings {
			SlimWarning(warnings[i])
		}
	})
}

func encode(t testing.TB, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzAnnotations checks what the annotations of templates can ask of every replica: an
// expression matches whole paths only and is bounded, and a probe stays below the base URL.
func FuzzAnnotations(f *testing.F) {
	for _, seed := range []string{
		"api/.*", "a)|(b", "(a{1000}){1000}", `\Aa\z|`, "1 socket\\.io/", "-1 x", "1  ", "api/kernels", "../x", "//evil.example", "a/../../b", "%2e%2e/x", "a?x=/../", "http:x", "a//b", `a\..\b`, "\x00", "",
	} {
		f.Add(seed, "api/kernels")
	}
	const base = "/user/" + anID + "/"
	f.Fuzz(func(t *testing.T, value, path string) {
		if paths, err := CompileIdlePaths(value); err == nil {
			if found := paths.FindStringIndex(path); found != nil && (found[0] != 0 || found[1] != len(path)) {
				t.Errorf("%q matches a part of %q", value, path)
			}
		}
		if most, _, err := ParseHeartbeatFrames(value); err == nil && (most < 0 || most > MaxHeartbeatFrame) {
			t.Errorf("%q is a heartbeat of %d bytes", value, most)
		}
		probe, err := ParseProbePath(value)
		if err != nil {
			return
		}
		if host, path := kubetest.Browse("10.0.0.7:8888", base, base+probe.String()); host != "10.0.0.7:8888" || !strings.HasPrefix(path, base) {
			t.Errorf("%q probes %s%s", value, host, path)
		}
	})
}

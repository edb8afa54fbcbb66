package instance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// moment is what the API server knew of a pod at one time after its creation.
type moment struct {
	After    string
	Pod      corev1.Pod
	Warnings []corev1.Event
}

// instanceAt is the instance of a recorded pod after a time, as the read model has it.
func (m moment) instanceAt(after time.Duration) Instance {
	pod := m.Pod.DeepCopy()
	pod.Spec = SlimSpec(pod)
	var warnings []*corev1.Event
	for i := range m.Warnings {
		warnings = append(warnings, SlimWarning(&m.Warnings[i]))
	}
	return FromPod(pod, warnings, kubetest.Noon.Add(after), kubetest.StartTimeout)
}

func (m moment) instance(t testing.TB) Instance {
	t.Helper()
	after, err := time.ParseDuration(m.After)
	if err != nil {
		t.Fatal(err)
	}
	return m.instanceAt(after)
}

func readMoments(t testing.TB, name string) (moments []moment) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err == nil {
		err = json.Unmarshal(raw, &moments)
	}
	if err != nil || len(moments) == 0 {
		t.Fatalf("%s has no moments: %v", name, err)
	}
	return moments
}

// TestRecorded walks through pods of a real cluster; record_test.go records them. at is
// when the last moment is looked at; 0 means when it was recorded.
func TestRecorded(t *testing.T) {
	const timeout = kubetest.StartTimeout + time.Minute
	for _, test := range []struct {
		name         string
		at           time.Duration
		status       Status
		reason       string
		fault        Fault
		says, detail string // parts of the message and of the detail
	}{
		{"deployed", 0, StatusDeployed, "", "", "", ""},

		{"image-not-found", 0, StatusFailed, "ErrImagePull", FaultTemplate, "The image localhost:5000/missing:dev does not exist", "not found"},
		{"image-denied", 0, StatusFailed, "ErrImagePull", FaultTemplate, "may not download the image localhost:5000/denied:dev", "403 Forbidden"},
		{"image-registry-overloaded", 0, StatusDeploying, "", FaultCluster, "does not answer", "503 Service Unavailable"},
		{"image-registry-overloaded", timeout, StatusFailed, "StartTimeout", FaultCluster, "does not answer", "503 Service Unavailable"},
		{"image-registry-refuses", 0, StatusDeploying, "", FaultCluster, "does not answer", "connection refused"},
		{"image-registry-unknown", 0, StatusFailed, "ErrImagePull", FaultTemplate, "registry that cannot be found", "no such host"},
		{"image-broken", 0, StatusFailed, "ErrImagePull", FaultTemplate, "is not a container image", "unexpected media type"},
		{"image-name-invalid", 0, StatusFailed, "InvalidImageName", FaultTemplate, "localhost/UPPER:dev", ""},
		{"image-never-pulled", 0, StatusFailed, "ErrImageNeverPull", FaultTemplate, "forbids to download", "not present with pull policy of Never"},

		{"secret-missing", 0, StatusFailed, "CreateContainerConfigError", FaultTemplate, "container app needs a Secret or ConfigMap", `secret "missing" not found`},
		{"secret-missing-helper", 0, StatusFailed, "CreateContainerConfigError", FaultTemplate, "container helper needs a Secret or ConfigMap", `secret "missing" not found`},
		{"runs-as-root", 0, StatusFailed, "CreateContainerConfigError", FaultTemplate, "may not run as root", "non-root policy"},
		{"configmap-volume-missing", 0, StatusDeploying, "", FaultTemplate, "A ConfigMap, Secret or volume that the template needs, or a key of one, does not exist.", `configmap "missing" not found`},
		{"configmap-volume-missing", timeout, StatusFailed, "StartTimeout", FaultTemplate, "A ConfigMap, Secret or volume that the template needs, or a key of one, does not exist.", `configmap "missing" not found`},
		{"host-path-missing", 0, StatusDeploying, "", FaultCluster, "cannot be attached or mounted", "hostPath type check failed"},
		{"claim-missing", 0, StatusPending, "", FaultTemplate, "A volume that the template needs does not exist", `persistentvolumeclaim "missing" not found`},

		{"command-not-found", 0, StatusFailed, "RunContainerError", FaultTemplate, "its command does not exist", "no such file or directory"},
		{"command-not-found-never", 0, StatusFailed, "StartError", FaultTemplate, "its command does not exist", "no such file or directory"},
		{"working-directory-invalid", 0, StatusFailed, "RunContainerError", FaultTemplate, "cannot be started", ""},

		{"exit-3", 0, StatusFailed, "Error", FaultTemplate, "tell the author of the template. The container's last output:\nthe reason", "Error"},
		{"exit-3-helper-runs", 0, StatusFailed, "Error", FaultTemplate, "container app exited with code 3", ""},
		{"sidecar-is-killed", 0, StatusFailed, "Error", FaultTemplate, "container app exited with code 3", ""},
		{"exit-0", 0, StatusDeleted, "Completed", "", "ended by itself", ""},
		{"exit-0-helper-runs", 0, StatusDeleted, "Completed", "", "ended by itself", ""},
		{"helper-exits", 0, StatusFailed, "HelperEnded", FaultChance, "Container helper exited with code 4", ""},
		{"init-fails", 0, StatusFailed, "Error", FaultTemplate, "container before exited with code 6", ""},
		{"exit-3-restarts", 0, StatusFailed, "CrashLoopBackOff", FaultTemplate, "container app exited with code 3, 5 times", ""},
		{"exit-0-restarts", 0, StatusFailed, "CrashLoopBackOff", FaultTemplate, "container app exited with code 0, 5 times", ""},
		{"init-fails-restarts", 0, StatusFailed, "CrashLoopBackOff", FaultTemplate, "container before exited with code 6, 5 times", ""},
		{"sidecar-crashes", 0, StatusDeploying, "", FaultChance, "another container that ended and is started again: container before exited with code 5, 5 times", ""},
		{"post-start-fails", 0, StatusDeploying, "", FaultTemplate, "because its postStart command failed, 3 times", ""},
		{"crashes-after-ready", 0, StatusDeployed, "", "", "started again 2 times: the last time, it exited with code 7", ""},
		{"liveness-fails", 0, StatusDeployed, "", "", "the last time, it was ended, because its liveness probe failed.", ""},
		{"out-of-memory", 0, StatusFailed, "OOMKilled", FaultTemplate, "ran out of memory (limit 64Mi)", ""},
		{"out-of-memory-restarts", 0, StatusDeployed, "", "", "ran out of memory (limit 64Mi)", ""},

		{"unschedulable", 0, StatusPending, "", FaultCluster, "Waiting for a node of the kind that the template asks for.", "node(s) didn't match"},
		{"cluster-full", 0, StatusPending, "", FaultCluster, "the cluster is full", "Insufficient cpu"},
		{"cluster-full", timeout, StatusFailed, "StartTimeout", FaultCluster, "the cluster is full", "Insufficient cpu"},
		{"gated", 0, StatusPending, "", FaultCluster, "holds the instance back", ""},
		{"out-of-cpu", 0, StatusFailed, "OutOfcpu", FaultChance, "no room", "enough resource: cpu"},
		{"node-does-not-fit", 0, StatusFailed, "NodeAffinity", FaultCluster, "does not fit", ""},

		{"not-listening", 20 * time.Second, StatusDeploying, "", "", "Starting the application.", ""},
		{"not-listening", time.Minute, StatusDeploying, "", FaultTemplate, "nothing listens on port 8888 of the pod's address", "connection refused"},
		{"not-listening", timeout, StatusFailed, "StartTimeout", FaultTemplate, "nothing listens on port 8888 of the pod's address", "connection refused"},
		{"listens-on-localhost", timeout, StatusFailed, "StartTimeout", FaultTemplate, "nothing listens on port 8888 of the pod's address", "connection refused"},
		{"not-ready-by-http", timeout, StatusFailed, "StartTimeout", FaultTemplate, "says that it is not ready", "404"},

		{"deadline", 0, StatusFailed, "DeadlineExceeded", FaultChance, "longest time", ""},
		{"evicted", 0, StatusFailed, "Evicted", FaultVisitor, "used more disk than it may", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			moments := readMoments(t, test.name)
			last := moments[len(moments)-1]
			inst := last.instance(t)
			if test.at != 0 {
				inst = last.instanceAt(test.at)
			}
			if inst.Status != test.status || inst.Reason != test.reason || inst.Fault != test.fault ||
				!strings.Contains(inst.Message, test.says) || !strings.Contains(inst.Detail, test.detail) {
				t.Errorf("got %s, %q, %q: %q (%s)", inst.Status, inst.Reason, inst.Fault, inst.Message, inst.Detail)
			}
			wantSteady(t, moments)
		})
	}
}

// wantSteady checks that a failure or end stays as it was first reported, and that
// visitors are told no address, node or Secret.
func wantSteady(t *testing.T, moments []moment) {
	t.Helper()
	var settled Instance
	for _, m := range moments {
		inst := m.instance(t)
		t.Logf("%6s %-9s %s %s | %s", m.After, inst.Status, inst.Reason, inst.Message, inst.Detail)
		if settled.ID != "" && (inst.Status != settled.Status || inst.Reason != settled.Reason) {
			t.Errorf("after %s: %s, %s became %s, %q", m.After, settled.Status, settled.Reason, inst.Status, inst.Reason)
		}
		if !inst.Alive() && settled.ID == "" {
			settled = inst
		}
		for _, private := range []string{"192.0.2.7", "node-1", `"missing"`, "rpc error"} {
			if strings.Contains(inst.Message, private) {
				t.Errorf("visitors are told %q", inst.Message)
			}
		}
	}
}

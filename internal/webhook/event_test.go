package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const testUID = "c9ba0f2e-4d6f-4b0e-9d53-0f6f0e1c2a77"

// testPod is the pod of instance 1, created at noon and claimed 10 s later.
func testPod() *corev1.Pod {
	return kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.LaunchedAt(kubetest.Noon.Add(10*time.Second)), func(pod *corev1.Pod) {
		pod.UID = types.UID(testUID)
		pod.Labels[instance.ClientLabel] = "a-client"
		pod.Annotations[instance.TokenAnnotation] = "a-token"
	})
}

func testTombstone(message string) *corev1.Event {
	return kubetest.Tombstone(testPod(), instance.EndFailed, message)
}

func TestEncode(t *testing.T) {
	name := instance.PodName(kubetest.ID(1))
	broken := instance.Instance{Reason: "OOMKilled", Message: "It used too much memory.", Fault: instance.FaultVisitor, Detail: "on node-1"}
	tombstone := testTombstone(instance.TombstoneText("It used too much memory.", "on node-1"))
	tombstone.Annotations[instance.FaultAnnotation], tombstone.Annotations[instance.DetailAnnotation] = "visitor", "on node-1"
	early := testTombstone("Stopped.")
	early.LastTimestamp.Time = kubetest.Noon
	for _, row := range []struct {
		event          event
		kind, at, rest string
	}{
		{launched(testPod(), true), "launched", "12:00:10.000", `,"warm":true`},
		{launched(testPod(), false), "launched", "12:00:10.000", `,"warm":false`},
		{ready(testPod(), kubetest.Noon.Add(12500*time.Millisecond), 2512*time.Millisecond), "ready", "12:00:12.500", `,"duration-seconds":2.512`},
		{failed(testPod(), kubetest.Noon.Add(time.Minute), broken), "failed", "12:01:00.000",
			`,"reason":"OOMKilled","message":"It used too much memory.","fault":"visitor"`},
		{ended(tombstone), "ended", "13:00:00.000",
			`,"reason":"Failed","message":"It used too much memory.","fault":"visitor","lifetime-seconds":3590`},
		{ended(early), "ended", "12:00:00.000", `,"reason":"Failed","message":"Stopped.","lifetime-seconds":0`},
	} {
		day := kubetest.Noon.Format("2006-01-02T")
		want := `{"specversion":"1.0","id":"` + testUID + `-` + row.kind + `","source":"/binder-deploy-kubernetes/binder-instances",` +
			`"type":"org.binder-project.deploy.instance.` + row.kind + `","subject":"` + name + `","time":"` + day + row.at + `Z",` +
			`"datacontenttype":"application/json","data":{"template":"` + kubetest.TemplateName + `","pod":"` + name + `",` +
			`"launched":"` + day + `12:00:10.000Z"` + row.rest + `}}`
		if got, err := row.event.encode("binder-instances"); err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
}

// Events hold nothing that gives access to an instance, and nothing about the client.
func TestEventsKeepSecrets(t *testing.T) {
	tombstone := testTombstone(instance.TombstoneText("It failed.", "10.0.0.1 refused"))
	tombstone.Annotations[instance.DetailAnnotation] = "10.0.0.1 refused"
	inst := instance.FromPod(testPod(), nil, kubetest.Noon, kubetest.StartTimeout)
	inst.Detail = "10.0.0.1 refused"
	for _, e := range []event{launched(testPod(), true), ready(testPod(), kubetest.Noon, 0), failed(testPod(), kubetest.Noon, inst), ended(tombstone)} {
		body, err := e.encode("binder-instances")
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{kubetest.ID(1), "a-token", "a-client", "10.0."} {
			if strings.Contains(string(body), secret) {
				t.Errorf("%s has %q: %s", e.kind, secret, body)
			}
		}
	}
}

// The example is the one that libraries of Standard Webhooks are tested with.
func TestSignature(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The example in the documentation is an event that is sent.
func TestDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/webhook.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	tombstone := testTombstone("The instance used more disk than it may, and was ended. Launch a new one.")
	tombstone.Annotations[instance.FaultAnnotation] = string(instance.FaultVisitor)
	body, err := ended(tombstone).encode("binder-instances")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Indent(&want, body, "", "  "); err != nil || example != want.String()+"\n" {
		t.Errorf("docs/webhook.md has\n%swant\n%s\n%v", example, &want, err)
	}
}

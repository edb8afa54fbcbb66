package webhook

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// kind is what happened to an instance.
type kind string

const (
	kindLaunched kind = "launched" // the cluster has accepted it
	kindReady    kind = "ready"    // it can be used
	kindFailed   kind = "failed"   // it failed before it was ready
	kindEnded    kind = "ended"    // it was deleted
)

const (
	// contentType is that of CloudEvents in structured mode: the whole event is the body.
	contentType = "application/cloudevents+json"
	// typePrefix begins the type of every event. CloudEvents wants there the name of the
	// organisation that defines the type, as reverse DNS.
	typePrefix = "org.binder-project.deploy.instance."
	// sourcePrefix begins the source of every event. The instances' namespace follows.
	sourcePrefix = "/" + instance.ManagerName + "/"
)

// event is one fact about an instance. It names the pod and never the instance's id, which
// lets its holder in; and it has nothing of the client.
type event struct {
	kind kind
	pod  types.UID
	name string // of the pod
	at   time.Time
	data data
}

// data is what is told of an instance: the "data" of a CloudEvent. Its names are those of the
// API, where that tells the same.
type data struct {
	Template string `json:"template"`
	Pod      string `json:"pod"`
	Launched string `json:"launched"` // RFC 3339
	// Warm, of launched: the launch claimed a warm pod.
	Warm *bool `json:"warm,omitempty"`
	// Duration, of ready: seconds from the request to the first moment of use.
	Duration *float64 `json:"duration-seconds,omitempty"`
	// Reason, Message and Fault, of failed and ended, are those of instance.Instance.
	Reason  string         `json:"reason,omitempty"`
	Message string         `json:"message,omitempty"`
	Fault   instance.Fault `json:"fault,omitempty"`
	// Lifetime, of ended: seconds from the launch to the end.
	Lifetime *float64 `json:"lifetime-seconds,omitempty"`
}

// cloudEvent is an event as CloudEvents 1.0 encodes it in JSON.
type cloudEvent struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`
	Data            data   `json:"data"`
}

// id is the same for the same fact, whoever tells it and however often. It has no full stop,
// which separates the parts that are signed.
func (e event) id() string { return string(e.pod) + "-" + string(e.kind) }

// encode returns the body that tells the event. namespace is that of the instances.
func (e event) encode(namespace string) ([]byte, error) {
	body, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: e.id(), Source: sourcePrefix + namespace, Type: typePrefix + string(e.kind),
		Subject: e.name, Time: instance.FormatTime(e.at), DataContentType: "application/json", Data: e.data,
	})
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.id(), err)
	}
	return body, nil
}

// ofPod returns an event about the instance of a pod.
func ofPod(kind kind, pod *corev1.Pod, at time.Time) event {
	return event{kind: kind, pod: pod.UID, name: pod.Name, at: at, data: data{
		Template: instance.TemplateOf(pod), Pod: pod.Name, Launched: instance.FormatTime(instance.LaunchedAt(pod)),
	}}
}

func launched(pod *corev1.Pod, warm bool) event {
	e := ofPod(kindLaunched, pod, instance.LaunchedAt(pod))
	e.data.Warm = &warm
	return e
}

func ready(pod *corev1.Pod, at time.Time, took time.Duration) event {
	e := ofPod(kindReady, pod, at)
	e.data.Duration = seconds(took)
	return e
}

func failed(pod *corev1.Pod, at time.Time, inst instance.Instance) event {
	e := ofPod(kindFailed, pod, at)
	e.data.Reason, e.data.Message, e.data.Fault = inst.Reason, sentences(inst), inst.Fault
	return e
}

// ended returns the event that a tombstone stands for.
func ended(tombstone *corev1.Event) event {
	inst := instance.FromTombstone(tombstone)
	name := tombstone.InvolvedObject.Name
	return event{kind: kindEnded, pod: tombstone.InvolvedObject.UID, name: name, at: inst.Ended, data: data{
		Template: inst.Template, Pod: name, Launched: instance.FormatTime(inst.Launched),
		Reason: inst.Reason, Message: sentences(inst), Fault: inst.Fault,
		// A tombstone says the second only, so that an end can seem to be before its launch.
		Lifetime: seconds(max(0, inst.Ended.Sub(inst.Launched))),
	}}
}

// sentences returns the message of an instance without the last output of its container: that is
// the application's, and not for other services.
func sentences(inst instance.Instance) string {
	text, _ := instance.CutLastOutput(inst.Message)
	return text
}

// seconds returns a duration in seconds, to the millisecond.
func seconds(d time.Duration) *float64 { return new(float64(d.Milliseconds()) / 1000) }

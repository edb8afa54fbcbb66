package world

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

func TestCopyHasItsOwn(t *testing.T) {
	t.Parallel()
	original := BarePod("original")
	original.UID, original.ResourceVersion, original.Status = "uid", "7", runningStatus(Address(1))
	original.Spec.Containers[0].Env[2].Value = "/user/" + original.Labels[idLabel] + "/"
	original.Annotations[tokenAnnotation] = "what only the original has"
	id := randomHex()
	pod := copyOf(original, id, 2)
	if pod.Name != podName(id) || pod.UID == original.UID || pod.ResourceVersion != "" || pod.Status.PodIP != "127.1.0.2" {
		t.Errorf("the copy is %v", pod)
	}
	text := pod.String()
	for _, old := range []string{original.Name, original.Labels[idLabel], original.Annotations[tokenAnnotation], Address(1)} {
		if strings.Contains(text, old) {
			t.Errorf("the copy has the original's %s", old)
		}
	}
	if variable := pod.Spec.Containers[0].Env[2].Value; variable != "/user/"+id+"/" {
		t.Errorf("the base URL is %s", variable)
	}
	if original.Labels[idLabel] == id || original.Status.PodIP != Address(1) {
		t.Error("the original has changed")
	}
}

func TestCopyIsAsTheAPIServerStoresIt(t *testing.T) {
	t.Parallel()
	pod := copyOf(BarePod("original"), randomHex(), 2)
	var encoded bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(pod, &encoded); err != nil {
		t.Fatal(err)
	}
	decoded, kind, err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Decode(encoded.Bytes(), nil, nil)
	if err != nil || kind.Version != "v1" || kind.Kind != "Pod" {
		t.Fatalf("kind %v, %v", kind, err)
	}
	pod.TypeMeta, pod.CreationTimestamp = metav1.TypeMeta{}, pod.CreationTimestamp.Rfc3339Copy()
	if got, ok := decoded.(*corev1.Pod); !ok || !equality.Semantic.DeepEqual(got.Spec, pod.Spec) || !equality.Semantic.DeepEqual(got.ObjectMeta, pod.ObjectMeta) {
		t.Error("what was decoded is not what was encoded")
	}
}

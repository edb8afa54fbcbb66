package instance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// moment is what the API server knew of a pod at one time after its creation.
type moment struct {
	After    string
	Pod      corev1.Pod
	Warnings []corev1.Event
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

func intOrString(port int) intstr.IntOrString { return intstr.FromInt(port) }

var _ = strings.Contains
var _ time.Duration

package faults

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEditsAreSeeded checks that a seed repeats a run's edits, and that there are many.
func TestEditsAreSeeded(t *testing.T) {
	make := func() (made []string) {
		random := rand.New(rand.NewPCG(1, 2))
		for range edits {
			data, err := json.Marshal(editOf(random, "other", noon))
			require.NoError(t, err)
			made = append(made, string(data))
		}
		return made
	}
	one := make()
	assert.Equal(t, one, make())
	different := map[string]bool{}
	for _, edit := range one {
		different[edit] = true
	}
	assert.Greater(t, len(different), 25)
	assert.Contains(t, different, "null", "some pods are deleted")
	assert.Contains(t, different, `{"labels":{"binder-project.org/id":"other"}}`)
}

// TestCopyOf checks that a copy has another id, and leaves its original as it is.
func TestCopyOf(t *testing.T) {
	original := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "one", UID: "u", Labels: map[string]string{idLabel: "1", templateLabel: "x"}, Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.PodSpec{NodeName: "node"},
	}
	pod := copyOf(original, "2")
	assert.Equal(t, map[string]string{idLabel: "2", templateLabel: "x"}, pod.Labels)
	assert.Equal(t, "1", original.Labels[idLabel])
	assert.Empty(t, pod.UID)
	assert.NotEqual(t, original.Name, pod.Name)
	assert.Equal(t, "node", pod.Spec.NodeName)
}

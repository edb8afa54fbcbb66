package podtemplate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Hash tells versions of a template apart, as a label value. It covers all that a
// pod gets from the template, and nothing that others write on the object.
//
// Changing what is encoded here changes every hash: the new release replaces all warm
// pods and preloads.
func Hash(template *corev1.PodTemplate) string {
	parts := []any{
		template.Template,
		template.Annotations[instance.PortAnnotation],
		template.Annotations[instance.CullTimeoutAnnotation],
		template.Annotations[instance.StripPrefixAnnotation],
		template.Annotations[instance.MaxAgeAnnotation],
		template.Annotations[instance.IdlePathsAnnotation],
		template.Annotations[instance.ActivityProbeAnnotation],
	}
	// Keys that are newer than the first release count only where they are set: a
	// template that does without them keeps its hash.
	for _, key := range []string{instance.IdleRequestsAnnotation, instance.HeartbeatFramesAnnotation, instance.TokenHeaderAnnotation, instance.PortsAnnotation, instance.LogsAnnotation} {
		if value, ok := template.Annotations[key]; ok {
			parts = append(parts, key, value)
		}
	}
	hash := sha256.New()
	encoder := json.NewEncoder(hash) // sorts map keys
	for _, part := range parts {
		if err := encoder.Encode(part); err != nil { // encoding plain data cannot fail
			panic(err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:5])
}

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
	hash := sha256.New()
	encoder := json.NewEncoder(hash) // sorts map keys
	for _, part := range []any{
		template.Template,
		template.Annotations[instance.PortAnnotation],
		template.Annotations[instance.CullTimeoutAnnotation],
		template.Annotations[instance.StripPrefixAnnotation],
		template.Annotations[instance.MaxAgeAnnotation],
		template.Annotations[instance.IdlePathsAnnotation],
		template.Annotations[instance.ActivityProbeAnnotation],
	} {
		if err := encoder.Encode(part); err != nil { // encoding plain data cannot fail
			panic(err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:5])
}

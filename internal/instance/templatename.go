package instance

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// TemplateOf returns the full name of the template that an object was made from.
func TemplateOf(meta metav1.Object) string {
	return cmp.Or(meta.GetAnnotations()[TemplateNameAnnotation], meta.GetLabels()[TemplateLabel])
}

// TemplateLabelValue returns a valid label value for any template name. A name that
// is not a valid one (too long, or with characters that a registry allows) is
// shortened, and a hash keeps it distinct. TemplateOf has the full name.
func TemplateLabelValue(name string) string {
	if len(validation.IsValidLabelValue(name)) == 0 {
		return name
	}
	const hashLength = 8
	const keep = validation.LabelValueMaxLength - len("-") - hashLength
	readable := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
	readable = strings.Trim(readable[:min(len(readable), keep)], "-._")
	sum := sha256.Sum256([]byte(name))
	return strings.TrimLeft(readable+"-"+hex.EncodeToString(sum[:hashLength/2]), "-")
}

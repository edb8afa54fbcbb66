package podtemplate

import (
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

// maxSpecs is the longest list of repositories that a template is for, in bytes.
const maxSpecs = 16 << 10

// Specs finds templates by the repositories that they say they are for. It reads a list again
// only when it has changed, because strangers ask. The zero Specs is ready to use.
type Specs struct {
	mu    sync.Mutex
	lists map[string]specList // by template
}

// specList is the list of one version of a template.
type specList struct {
	value    string
	patterns []repospec.Pattern // nil if the list is not valid
}

// Find returns the template that says it is for a repository and a version, or nil. One
// that names the version goes before one that is for all versions, and then the first by
// name. A template whose list is not valid is for none; an Event on it says so.
func (s *Specs) Find(templates []*corev1.PodTemplate, spec repospec.Spec) (found *corev1.PodTemplate) {
	foundExact := false
	lists := s.read(templates)
	for _, template := range templates {
		for _, pattern := range lists[template.Name].patterns {
			matches, exact := pattern.Matches(spec)
			if matches && (found == nil || exact && !foundExact || exact == foundExact && template.Name < found.Name) {
				found, foundExact = template, exact
			}
		}
	}
	return found
}

// read returns the lists of templates, and keeps them in place of those of before.
func (s *Specs) read(templates []*corev1.PodTemplate) map[string]specList {
	s.mu.Lock()
	defer s.mu.Unlock()
	lists := map[string]specList{}
	for _, template := range templates {
		value := template.Annotations[instance.SpecsAnnotation]
		if value == "" {
			continue
		}
		list := s.lists[template.Name]
		if list.value != value {
			patterns, _ := parseSpecs(value) // nil with an error
			list = specList{value, patterns}
		}
		lists[template.Name] = list
	}
	s.lists = lists
	return lists
}

// ExcludesVersion reports whether a template names a repository for other versions only, so that
// it is not for this one, whatever its own name is.
func ExcludesVersion(template *corev1.PodTemplate, spec repospec.Spec) bool {
	patterns, err := parseAnnotation(template, instance.SpecsAnnotation, parseSpecs)
	names := false
	for _, pattern := range patterns {
		if matches, _ := pattern.Matches(spec); err != nil || matches {
			return false
		}
		names = names || pattern.Names(spec)
	}
	return names
}

func parseSpecs(value string) ([]repospec.Pattern, error) {
	if len(value) > maxSpecs {
		return nil, fmt.Errorf("it has more than %d bytes", maxSpecs)
	}
	patterns, err := repospec.ParsePatterns(value)
	switch {
	case err != nil:
		return nil, err
	case len(patterns) == 0:
		return nil, invalid(strings.TrimSpace(value), "a repository such as gh/org/repo, or several, one a line")
	}
	return patterns, nil
}

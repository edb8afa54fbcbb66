package harness

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCompareRights(t *testing.T) {
	event := func(verb, resource, name, decision string) (e auditEvent) {
		e.Verb, e.RequestURI = verb, "/"+resource+"/"+name
		e.ObjectRef.Namespace, e.ObjectRef.Resource, e.ObjectRef.Name = "n", resource, name
		e.Annotations = map[string]string{decisionKey: decision}
		return e
	}
	granted := []right{
		{"n", "", "pods", "list", ""},
		{"n", "", "pods", "create", ""},
		{"n", "", "services", "watch", "proxy"},
		{"n", "", "services", "list", "proxy"},
		{"other", "", "pods", "list", ""},
		{"n", "apps", "pods", "list", ""},
	}
	denied, unused := compareRights(granted, []auditEvent{
		event("list", "pods", "", "allow"),
		event("create", "pods", "", "forbid"), // not a use
		event("get", "pods", "a", "forbid"),
		event("get", "pods", "a", "forbid"), // once is enough
		event("watch", "services", "proxy", "allow"),
		event("list", "services", "another", "allow"),
	})
	assert.Equal(t, []string{"create /pods/", "get /pods/a"}, denied)
	assert.Equal(t, []string{"create pods in n", "list services in n proxy", "list pods in other", "list pods in n"}, unused)
}

package keys

import (
	"fmt"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const testKey = "0123456789abcdef"

func TestKeysOpen(t *testing.T) {
	for header, want := range map[string]bool{
		testKey:                       true, // as binder-client sends it
		"token " + testKey:            true,
		"Bearer " + testKey:           true,
		"TOKEN " + testKey:            true,
		"bearer   " + testKey + " ":   true,
		"  " + testKey + "\t":         true,
		"":                            false,
		" ":                           false,
		"token":                       false,
		"token ":                      false,
		"Bearer":                      false,
		"Basic " + testKey:            false,
		"token Bearer " + testKey:     false,
		"token" + testKey:             false,
		testKey + " " + testKey:       false,
		testKey[:15]:                  false,
		testKey + "0":                 false,
		strings.ToUpper(testKey):      false,
		"token " + testKey + ", more": false,
	} {
		if got := New("another", testKey, "third").Opens(header); got != want {
			t.Errorf("Opens(%q) = %v, want %v", header, got, want)
		}
		if new(Keys).Opens(header) || New().Opens(header) {
			t.Errorf("no key opens for %q", header)
		}
	}
}

func TestKeysCannotBePrinted(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range []any{New(testKey), *New(testKey).valid.Load(), NewSecret(testKey)} {
			if printed := fmt.Sprintf(format, value); strings.Contains(printed, testKey) {
				t.Errorf("%s prints the key: %s", format, printed)
			}
		}
	}
}

func TestInstanceIDOfIdempotencyKey(t *testing.T) {
	id := NewSecret(testKey).InstanceID("retry", "echo")
	if again := NewSecret(testKey).InstanceID("retry", "echo"); again != id || !instance.ValidID(id) {
		t.Errorf("one replica makes the id %q, another %q; want one valid id", id, again)
	}
	for name, other := range map[string]string{
		"secret":          NewSecret("another").InstanceID("retry", "echo"),
		"idempotency key": NewSecret(testKey).InstanceID("retry2", "echo"),
		"template":        NewSecret(testKey).InstanceID("retry", "echo2"),
		"boundary":        NewSecret(testKey).InstanceID("retrye", "cho"),
	} {
		if other == id {
			t.Errorf("another %s makes the same id", name)
		}
	}
}

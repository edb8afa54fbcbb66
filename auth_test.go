package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

func TestAPIKeyOpens(t *testing.T) {
	const key = "0123456789abcdef"
	for header, want := range map[string]bool{
		key:                       true, // as binder-client sends it
		"token " + key:            true,
		"Bearer " + key:           true,
		"TOKEN " + key:            true,
		"bearer   " + key + " ":   true,
		"  " + key + "\t":         true,
		"":                        false,
		" ":                       false,
		"token":                   false,
		"token ":                  false,
		"Bearer":                  false,
		"Basic " + key:            false,
		"token Bearer " + key:     false,
		"token" + key:             false,
		key + " " + key:           false,
		key[:15]:                  false,
		key + "0":                 false,
		strings.ToUpper(key):      false,
		"token " + key + ", more": false,
	} {
		if got := protocol.NewAPIKey(key).Opens(header); got != want {
			t.Errorf("opens(%q) = %v, want %v", header, got, want)
		}
	}
}

func TestAPIKeyThatWasNeverMadeOpensNothing(t *testing.T) {
	for _, header := range []string{"", "token ", "0123456789abcdef"} {
		if (protocol.APIKey{}).Opens(header) {
			t.Errorf("the zero key opens for %q", header)
		}
	}
}

func TestAPIKeyCannotBePrinted(t *testing.T) {
	const key = "0123456789abcdef"
	k := protocol.NewAPIKey(key)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if printed := fmt.Sprintf(format, k); strings.Contains(printed, key) {
			t.Errorf("%s prints the key: %s", format, printed)
		}
	}
}

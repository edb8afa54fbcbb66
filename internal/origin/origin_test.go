package origin

import (
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func apart() Layout {
	return Layout{Public: []string{"binder.example.com:8443", "Alias.example.com"}, Domain: "users.example.org:8443"}
}

// Every spelling of a host in the domain is known as one. Only the spelling that
// browsers send has the instance.
func TestOfInstances(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for host, want := range map[string]struct {
		id string
		ok bool
	}{
		id + ".users.example.org":                  {id, true},
		id + ".users.example.org:8443":             {id, true},
		id + ".users.example.org:80":               {id, true},
		id + ".users.example.org:":                 {id, true},
		"3000-" + id + ".users.example.org:8443":   {id, true},
		"03000-" + id + ".users.example.org":       {"", true},
		"0-" + id + ".users.example.org":           {"", true},
		"65536-" + id + ".users.example.org":       {"", true},
		"3000,80-" + id + ".users.example.org":     {"", true},
		"-" + id + ".users.example.org":            {"", true},
		"3000-3000-" + id + ".users.example.org":   {"", true},
		"3000-" + id[1:] + ".users.example.org":    {"", true},
		id + ".USERS.example.org":                  {id, true},
		id + ".users.example.org.":                 {"", true},
		id + ".users.example.org.:8443":            {"", true},
		strings.ToUpper(id) + ".users.example.org": {"", true},
		id[1:] + ".users.example.org":              {"", true},
		id + "0.users.example.org":                 {"", true},
		"a." + id + ".users.example.org":           {"", true},
		id + "..users.example.org":                 {"", true},
		"." + id + ".users.example.org":            {"", true},
		"www.users.example.org":                    {"", true},
		".users.example.org":                       {"", true},
		"users.example.org":                        {"", true},
		"Users.Example.org.:1":                     {"", true},
		id + "users.example.org":                   {"", false},
		id + ".users.example.org.evil":             {"", false},
		id + ".users.example.org:80:80":            {"", false},
		id + ".users.example.org:x":                {"", false},
		"example.org":                              {"", false},
		"binder.example.com":                       {"", false},
		"":                                         {"", false},
		"[::1]:80":                                 {"", false},
	} {
		if got, ok := apart().OfInstances(host); got != want.id || ok != want.ok {
			t.Errorf("%q: got %q, %t, want %q, %t", host, got, ok, want.id, want.ok)
		}
		if apart().IsMain(host) && want.ok {
			t.Errorf("%q passes for the main address", host)
		}
		if _, ok := (Layout{}).OfInstances(host); ok {
			t.Errorf("%q: is of instances without a domain", host)
		}
	}
}

// A port is part of the name of its host.
func TestPort(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for host, want := range map[string]string{
		"3000-" + id + ".users.example.org:8443": "3000", id + ".users.example.org": "", "3000-" + id + ".example.org": "",
		"3000-" + id + ".users.example.org.": "", "x-" + id + ".users.example.org": "",
	} {
		if there, got := apart().Port(host); got != want || want != "" && there != id {
			t.Errorf("%q: port %q of %q", host, got, there)
		}
		if _, got := (Layout{}).Port(host); got != "" {
			t.Errorf("%q: port %q without a domain", host, got)
		}
	}
	if got, want := apart().PortURL(id, "3000"), "//3000-"+id+".users.example.org:8443/"; got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
}

func TestIsMain(t *testing.T) {
	six := Layout{Public: []string{"[2001:db8::1]:8000"}}
	for _, row := range []struct {
		layout Layout
		host   string
		want   bool
	}{
		{Layout{}, "anything", true},
		{Layout{}, "", true},
		{apart(), "binder.example.com:8443", true},
		{apart(), "binder.example.com", true},
		{apart(), "BINDER.example.com.:1", true},
		{apart(), "alias.example.com", true},
		{apart(), "evil.example.com", false},
		{apart(), "binder.example.com.evil", false},
		{apart(), "binder.example.com:80:80", false},
		{apart(), "10.0.0.1:8443", false},
		{apart(), "", false},
		{six, "[2001:db8::1]", true},
		{six, "[2001:DB8::1]:8000", true},
		{six, "[2001:db8::2]:8000", false},
	} {
		if got := row.layout.IsMain(row.host); got != row.want {
			t.Errorf("%q of %q: got %t", row.host, row.layout.Public, got)
		}
	}
}

func TestReferences(t *testing.T) {
	id := kubetest.ID(1)
	for _, row := range []struct{ got, want string }{
		{Layout{}.BaseURL(id), "/user/" + id + "/"},
		{Layout{}.Main("/launch/x"), "/launch/x"},
		{apart().BaseURL(id), "//" + id + ".users.example.org:8443/user/" + id + "/"},
		{apart().Main("/launch/x"), "//binder.example.com:8443/launch/x"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}

func TestIsInstances(t *testing.T) {
	for origin, want := range map[string]bool{
		"https://" + kubetest.ID(1) + ".users.example.org:8443": true,
		"http://" + kubetest.ID(1) + ".users.example.org":       true,
		"https://" + kubetest.ID(2) + ".users.example.org:8443": false,
		"https://users.example.org:8443":                        false,
		"https://evil.example":                                  false,
		"null":                                                  false,
		"":                                                      false,
		kubetest.ID(1) + ".users.example.org":                   false,
	} {
		if got := apart().IsInstances(origin, kubetest.ID(1)); got != want {
			t.Errorf("%q: got %t", origin, got)
		}
	}
}

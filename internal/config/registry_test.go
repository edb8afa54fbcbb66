package config

import (
	"io"
	"strings"
	"testing"
)

func TestRegistryURLs(t *testing.T) {
	for _, good := range []string{
		"http://registry:8082", "http://registry", "https://registry.example.com/", "http://10.0.0.1:80/base", "http://[::1]:8082", "HTTP://x",
	} {
		c, err := Parse([]string{"--registry-url=" + good}, settingsHost(nil, nil), io.Discard)
		if err != nil || c.RegistryURL != good {
			t.Errorf("%s: got %v", good, err)
		}
	}
	for _, bad := range []string{
		"registry", "registry:8082", "//registry", "http://", "http:///x", "http:registry", "ftp://registry", "unix:///x",
		"http://registry:0", "http://registry:65536", "http://registry:x", "http://reg istry", "http://registry?x", "http://registry/?", "http://registry#",
		"http://user:password@registry",
	} {
		_, err := Parse([]string{"--registry-url=" + bad}, settingsHost(nil, nil), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "--registry-url") || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: got %v, want an error that names the flag", bad, err)
		}
	}
}

func TestRegistryAPIKeys(t *testing.T) {
	files := map[string]string{"key": "from-file\n", "empty": " \n", "own": "own-key\n"}
	for _, row := range []struct {
		name string
		args []string
		env  map[string]string
		want string
		says string
	}{
		{"the service's own", []string{"--api-key=own"}, nil, "own", ""},
		{"the service's own, of a file", []string{"--api-key-file=own"}, nil, "own-key", ""},
		{"one that was made up", nil, nil, "", ""},
		{"flag", []string{"--api-key=own", "--registry-api-key=other"}, nil, "other", ""},
		{"environment", []string{"--api-key=own"}, map[string]string{"BINDER_REGISTRY_API_KEY": "other\n"}, "other", ""},
		{"file", []string{"--registry-api-key-file=key"}, nil, "from-file", ""},
		{"both", []string{"--registry-api-key=other", "--registry-api-key-file=key"}, nil, "", "--registry-api-key and --registry-api-key-file"},
		{"empty file", []string{"--registry-api-key-file=empty"}, nil, "", "--registry-api-key-file"},
		{"no file", []string{"--registry-api-key-file=nowhere"}, nil, "", "--registry-api-key-file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Parse(row.args, settingsHost(row.env, files), io.Discard)
			switch {
			case row.says != "":
				if err == nil || !strings.Contains(err.Error(), row.says) {
					t.Errorf("got %v, want %q in it", err, row.says)
				}
			case err != nil || c.RegistryAPIKey != row.want:
				t.Errorf("got %q, %v, want %q", c.RegistryAPIKey, err, row.want)
			case c.APIKey == "":
				t.Error("the service has no key of its own")
			}
		})
	}
}

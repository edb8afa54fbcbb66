package config

import (
	"maps"
	"strings"
	"testing"
)

func TestSettingsFile(t *testing.T) {
	for _, row := range []struct {
		name, file string
		want       map[string]string
		ignored    string
	}{
		{"empty", `{}`, nil, ""},
		{"values that count as absent", `{"port": null, "lookupHost": "", "registry": null}`, nil, ""},
		{"empty registry", `{"registry": {"host": "", "port": null}}`, nil, ""},
		{"port", `{"port": 9084}`, map[string]string{"api-address": ":9084"}, ""},
		{"port in a string", `{"port": " 9084 "}`, map[string]string{"api-address": ":9084"}, ""},
		{"host", `{"lookupHost": "binder.example.com:80"}`, map[string]string{"public-host": "binder.example.com:80"}, ""},
		{"registry", `{"registry": {"host": "reg", "port": 80}}`, map[string]string{"registry-url": "http://reg:80"}, ""},
		{"registry without port", `{"registry": {"host": "reg"}}`, map[string]string{"registry-url": "http://reg:8082"}, ""},
		{"registry without host", `{"registry": {"port": "80"}}`, map[string]string{"registry-url": "http://localhost:80"}, ""},
		{"registry with a scheme", `{"registry": {"host": "http://reg"}}`, map[string]string{"registry-url": "http://reg:8082"}, ""},
		{"registry with https", `{"registry": {"host": "https://reg", "port": 443}}`, map[string]string{"registry-url": "https://reg:443"}, ""},
		{"registry as IPv6 address", `{"registry": {"host": "2001:db8::1"}}`, map[string]string{"registry-url": "http://[2001:db8::1]:8082"}, ""},
		{"registry as IPv6 address in brackets", `{"registry": {"host": "[::1]"}}`, map[string]string{"registry-url": "http://[::1]:8082"}, ""},
		{
			"the file of the Node server", `{"db": {"host": "localhost", "port": 9050}, "logging": {"host": "localhost"},
				"kube": {"provider": "gce"}, "pool": {"enabled": false, "size": 1}, "registry": {"host": "localhost", "port": 8082},
				"test": {}, "lookupHost": "", "port": 8084}`,
			map[string]string{"api-address": ":8084", "registry-url": "http://localhost:8082"},
			"db, kube, logging, pool.enabled (annotate PodTemplates with binder-project.org/pool-size instead), " +
				"pool.size (annotate PodTemplates with binder-project.org/pool-size instead), test",
		},
		{
			"unknown keys", `{"Port": 1, "apiKey": "secret", "registry": {"path": "x"}}`, nil,
			"Port, apiKey (set $BINDER_API_KEY or --api-key-file instead), registry.path",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, warning, err := parseSettings("deploy.conf", []byte(row.file))
			if err != nil || !maps.Equal(got, row.want) {
				t.Errorf("got %v, %v, want %v", got, err, row.want)
			}
			if !strings.HasSuffix(warning, row.ignored) || (warning == "") != (row.ignored == "") {
				t.Errorf("got warning %q, want %q in it", warning, row.ignored)
			}
		})
	}
}

func TestSettingsFileMistakes(t *testing.T) {
	for _, row := range []struct {
		file     string
		mistakes int
		says     []string
	}{
		{``, 1, []string{"JSON object"}},
		{`port: 8084`, 1, []string{"JSON object"}},
		{`{"port": 8084,}`, 1, []string{"JSON object"}},
		{`null`, 1, []string{"JSON object", "null"}},
		{`[]`, 1, []string{"JSON object"}},
		{`{"port": 0}`, 1, []string{"port is 0", "1 to 65535"}},
		{`{"port": 65536}`, 1, []string{"port is 65536"}},
		{`{"port": 80.5}`, 1, []string{"port is 80.5"}},
		{`{"port": "http"}`, 1, []string{`port is "http"`}},
		{`{"port": ""}`, 1, []string{`port is ""`}},
		{`{"port": [80]}`, 1, []string{"port is [80]"}},
		{`{"port": true}`, 1, []string{"port is true"}},
		{`{"lookupHost": 7}`, 1, []string{"lookupHost is 7", "host or host:port"}},
		{`{"lookupHost": "http://x/"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"lookupHost": "a:b"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"lookupHost": "[::1"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"lookupHost": "::1"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"lookupHost": "a:123456"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"lookupHost": ":80"}`, 1, []string{"lookupHost", "host or host:port"}},
		{`{"registry": {"host": "a[b"}}`, 1, []string{"registry.host"}},
		{`{"registry": "reg:8082"}`, 1, []string{"registry is", "JSON object"}},
		{`{"registry": {"host": "reg:8082"}}`, 1, []string{"registry.host", "no port"}},
		{`{"registry": {"host": "reg/path"}}`, 1, []string{"registry.host", "no path"}},
		{`{"registry": {"host": "ftp://reg"}}`, 1, []string{"registry.host"}},
		{`{"registry": {"host": "http://"}}`, 1, []string{"registry.host"}},
		{`{"registry": {"host": ["reg"]}}`, 1, []string{"registry.host"}},
		{`{"registry": {"host": "[]"}}`, 1, []string{"registry.host"}},
		{`{"registry": {"host": "reg", "port": -1}}`, 1, []string{"registry.port is -1", "1 to 65535"}},
		{`{"pool": true}`, 1, []string{"pool is true", "JSON object"}},
		{`{"port": 0, "lookupHost": [], "registry": {"host": 1, "port": 0}}`, 4, []string{"port is 0", "lookupHost", "registry.host", "registry.port"}},
	} {
		t.Run(row.file, func(t *testing.T) {
			wantMistakes(t, testHost("deploy.conf="+row.file), []string{"--config=deploy.conf"}, row.mistakes, append(row.says, "--config: deploy.conf")...)
		})
	}
}

// A flag takes precedence over the environment, and the environment over the file.
func TestSettingsFileComesLast(t *testing.T) {
	const file = `deploy.conf={"port": 1111, "lookupHost": "file", "registry": {"host": "file"}, "db": {}}`
	const flag = "--config=deploy.conf"
	for _, row := range []struct {
		name                    string
		args, env               []string
		address, host, registry string
	}{
		{"default", nil, nil, ":8084", "", ""},
		{"file", []string{flag}, nil, ":1111", "file", "http://file:8082"},
		{"file from the environment", nil, []string{"BINDER_CONFIG=deploy.conf"}, ":1111", "file", "http://file:8082"},
		{"environment", []string{flag}, []string{"BINDER_API_ADDRESS=:2222", "BINDER_REGISTRY_URL=http://env:2"}, ":2222", "file", "http://env:2"},
		{
			"flag", []string{flag, "--api-address=:3333", "--public-host=flag", "--registry-url=http://flag:3"},
			[]string{"BINDER_API_ADDRESS=:2222", "BINDER_REGISTRY_URL=http://env:2"}, ":3333", "flag", "http://flag:3",
		},
		{"empty flag", []string{flag, "--registry-url="}, nil, ":1111", "file", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := mustParse(t, testHost(append(row.env, file)...), row.args...)
			if c.APIAddress != row.address || c.PublicHost != row.host || c.RegistryURL != row.registry {
				t.Errorf("got %s, %s, %s, want %s, %s, %s", c.APIAddress, c.PublicHost, c.RegistryURL, row.address, row.host, row.registry)
			}
			if read := c.ConfigFile != ""; read != strings.Contains(strings.Join(c.Warnings, ""), "db") {
				t.Errorf("got warnings %q", c.Warnings)
			}
		})
	}
}

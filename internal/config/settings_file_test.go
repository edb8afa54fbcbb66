package config

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"strings"
	"testing"
)

func TestSettingsFileIsRead(t *testing.T) {
	for _, row := range []struct {
		name, file string
		want       map[string]string
		ignored    string
	}{
		{"empty", `{}`, nil, ""},
		{"absent, in other words", `{"port": null, "lookupHost": "", "registry": null}`, nil, ""},
		{"empty registry", `{"registry": {"host": "", "port": null}}`, nil, ""},
		{"port", `{"port": 9084}`, map[string]string{"api-address": ":9084"}, ""},
		{"port in a string", `{"port": " 9084 "}`, map[string]string{"api-address": ":9084"}, ""},
		{"host", `{"lookupHost": "binder.example.com:80"}`, map[string]string{"public-host": "binder.example.com:80"}, ""},
		{"registry", `{"registry": {"host": "reg", "port": 80}}`, map[string]string{"registry-url": "http://reg:80"}, ""},
		{"registry's host only", `{"registry": {"host": "reg"}}`, map[string]string{"registry-url": "http://reg:8082"}, ""},
		{"registry's port only", `{"registry": {"port": "80"}}`, map[string]string{"registry-url": "http://localhost:80"}, ""},
		{"registry with a scheme", `{"registry": {"host": "http://reg"}}`, map[string]string{"registry-url": "http://reg:8082"}, ""},
		{"registry by https", `{"registry": {"host": "https://reg", "port": 443}}`, map[string]string{"registry-url": "https://reg:443"}, ""},
		{"registry by address", `{"registry": {"host": "2001:db8::1"}}`, map[string]string{"registry-url": "http://[2001:db8::1]:8082"}, ""},
		{"registry by address in brackets", `{"registry": {"host": "[::1]"}}`, map[string]string{"registry-url": "http://[::1]:8082"}, ""},
		{
			"the Node server's own", `{"db": {"host": "localhost", "port": 9050}, "logging": {"host": "localhost"},
				"kube": {"provider": "gce"}, "pool": {"enabled": false, "size": 1}, "registry": {"host": "localhost", "port": 8082},
				"test": {}, "lookupHost": "", "port": 8084}`,
			map[string]string{"api-address": ":8084", "registry-url": "http://localhost:8082"},
			"db, kube, logging, pool.enabled (annotate PodTemplates with binder-project.org/pool-size instead), " +
				"pool.size (annotate PodTemplates with binder-project.org/pool-size instead), test",
		},
		{
			"what nobody knows", `{"Port": 1, "apiKey": "secret", "registry": {"path": "x"}}`, nil,
			"Port, apiKey (give --api-key, or better its environment variable, instead), registry.path",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, warning, err := parseSettings("deploy.conf", []byte(row.file))
			if err != nil || !maps.Equal(got, row.want) {
				t.Errorf("got %v, %v, want %v", got, err, row.want)
			}
			want := ""
			if row.ignored != "" {
				want = "settings file deploy.conf: these keys mean nothing here: " + row.ignored
			}
			if warning != want {
				t.Errorf("got warning\n%s\nwant\n%s", warning, want)
			}
		})
	}
}

func TestSettingsFileMistakesAreNamed(t *testing.T) {
	for _, row := range []struct {
		file string
		says []string
	}{
		{``, []string{"JSON object"}},
		{`port: 8084`, []string{"JSON object"}},
		{`{"port": 8084,}`, []string{"JSON object"}},
		{`null`, []string{"JSON object", "null"}},
		{`[]`, []string{"JSON object"}},
		{`{"port": 0}`, []string{"port is 0", "1 to 65535"}},
		{`{"port": 65536}`, []string{"port is 65536"}},
		{`{"port": 80.5}`, []string{"port is 80.5"}},
		{`{"port": "http"}`, []string{`port is "http"`}},
		{`{"port": ""}`, []string{`port is ""`}},
		{`{"port": [80]}`, []string{"port is [80]"}},
		{`{"port": true}`, []string{"port is true"}},
		{`{"lookupHost": 7}`, []string{"lookupHost is 7", "host or host:port"}},
		{`{"lookupHost": "http://x/"}`, []string{"lookupHost", "host or host:port"}},
		{`{"registry": "reg:8082"}`, []string{"registry is", "JSON object"}},
		{`{"registry": {"host": "reg:8082"}}`, []string{"registry.host", "no port"}},
		{`{"registry": {"host": "reg/path"}}`, []string{"registry.host", "no path"}},
		{`{"registry": {"host": "ftp://reg"}}`, []string{"registry.host"}},
		{`{"registry": {"host": "http://"}}`, []string{"registry.host"}},
		{`{"registry": {"host": ["reg"]}}`, []string{"registry.host"}},
		{`{"registry": {"host": "reg", "port": -1}}`, []string{"registry.port is -1", "1 to 65535"}},
		{`{"pool": true}`, []string{"pool is true", "JSON object"}},
		{`{"port": 0, "lookupHost": [], "registry": {"host": 1, "port": 0}}`, []string{"port is 0", "lookupHost", "registry.host", "registry.port"}},
	} {
		values, _, err := parseSettings("deploy.conf", []byte(row.file))
		if err == nil {
			t.Errorf("%s: got %v, want an error", row.file, values)
			continue
		}
		for _, want := range append(row.says, "--config: deploy.conf") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want %q in it", row.file, err, want)
			}
		}
	}
}

// settingsHost is a machine with an environment and files.
func settingsHost(env, files map[string]string) Environment {
	return Environment{
		Env: func(name string) (string, bool) {
			value, ok := env[name]
			return value, ok
		},
		ReadFile: func(name string) ([]byte, error) {
			if data, ok := files[name]; ok {
				return []byte(data), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
		Hostname: func() (string, error) { return "test", nil },
		Random:   strings.NewReader(strings.Repeat("r", 1000)),
	}
}

// TestSettingsFileGoesLast: flag > environment > settings file > default.
func TestSettingsFileGoesLast(t *testing.T) {
	files := map[string]string{"deploy.conf": `{"port": 1111, "lookupHost": "file", "registry": {"host": "file"}, "db": {}}`}
	for _, row := range []struct {
		name                           string
		args                           []string
		env                            map[string]string
		address, Environment, registry string
	}{
		{"default", nil, nil, ":8084", "", ""},
		{"file", []string{"--config=deploy.conf"}, nil, ":1111", "file", "http://file:8082"},
		{"file by the environment", nil, map[string]string{"BINDER_CONFIG": "deploy.conf"}, ":1111", "file", "http://file:8082"},
		{
			"environment", []string{"--config=deploy.conf"}, map[string]string{"BINDER_API_ADDRESS": ":2222", "BINDER_REGISTRY_URL": "http://env:2"},
			":2222", "file", "http://env:2",
		},
		{
			"flag", []string{"--config=deploy.conf", "--api-address=:3333", "--public-host=flag", "--registry-url=http://flag:3"},
			map[string]string{"BINDER_API_ADDRESS": ":2222", "BINDER_REGISTRY_URL": "http://env:2"}, ":3333", "flag", "http://flag:3",
		},
		{"flag that says nothing", []string{"--config=deploy.conf", "--registry-url="}, nil, ":1111", "file", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Parse(row.args, settingsHost(row.env, files), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if c.APIAddress != row.address || c.PublicHost != row.Environment || c.RegistryURL != row.registry {
				t.Errorf("got %s, %s, %s, want %s, %s, %s", c.APIAddress, c.PublicHost, c.RegistryURL, row.address, row.Environment, row.registry)
			}
			if read := c.ConfigFile != ""; read != strings.Contains(c.Warning, "db") {
				t.Errorf("got warning %q", c.Warning)
			}
		})
	}
}

func TestSettingsFileThatIsNotThere(t *testing.T) {
	_, err := Parse([]string{"--config=nowhere.conf"}, settingsHost(nil, nil), io.Discard)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--config") || !strings.Contains(err.Error(), "nowhere.conf") {
		t.Errorf("got %v", err)
	}
}

func TestSettingsFileMistakesAreOfAll(t *testing.T) {
	files := map[string]string{"deploy.conf": `{"port": 0}`}
	_, err := Parse([]string{"--config=deploy.conf", "--log-format=xml"}, settingsHost(nil, files), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "port is 0") || !strings.Contains(err.Error(), "--log-format") {
		t.Errorf("got %v, want both mistakes", err)
	}
}

package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const podNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// hostWith is a machine named "machine" with environment variables and files,
// each written NAME=value, a file's name being a path.
func hostWith(entries ...string) Environment {
	get := func(name string) (string, bool) {
		for _, entry := range entries {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
	return Environment{
		Env: get,
		ReadFile: func(path string) ([]byte, error) {
			content, ok := get(path)
			if !ok {
				return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
			}
			return []byte(content), nil
		},
		Hostname: func() (string, error) { return "machine", nil },
		Random:   bytes.NewReader(bytes.Repeat([]byte{0xab}, 1000)),
	}
}

// mustParse parses a command line without a mistake, which prints nothing.
func mustParse(t testing.TB, from Environment, args ...string) *Config {
	t.Helper()
	var out bytes.Buffer
	c, err := Parse(args, from, &out)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if out.Len() > 0 {
		t.Errorf("%q: printed was %s", args, &out)
	}
	return c
}

func TestConfigDefaults(t *testing.T) {
	want := Config{
		APIAddress:         ":8084",
		ProxyAddress:       ":8000",
		MetricsAddress:     ":9090",
		Namespace:          "binder",
		InstancesNamespace: "binder-instances",
		ProxyService:       "binder-proxy",
		LeaseName:          "binder-deploy-kubernetes",
		PreloadHelperImage: "registry.k8s.io/pause:3.10.1",
		LaunchPage:         true,
		Identity:           "machine-abababab",
		APIKey:             strings.Repeat("ab", 32),
		APIKeyGenerated:    true,
		CullTimeout:        time.Hour,
		MaxCullTimeout:     24 * time.Hour,
		CullInterval:       30 * time.Second,
		StartTimeout:       5 * time.Minute,
		ShutdownDelay:      5 * time.Second,
		DrainTimeout:       20 * time.Second,
		LogFormat:          "auto",
		LogLevel:           slog.LevelInfo,
	}
	if got := *mustParse(t, hostWith()); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Every setting is a flag and an environment variable; the flag goes first.
func TestConfigFlagsAndEnvironment(t *testing.T) {
	type setting struct {
		value, other string // both differ from the default
		read         func(*Config) any
	}
	text := func(read func(*Config) string) setting {
		return setting{"one", "other", func(c *Config) any { return read(c) }}
	}
	duration := func(read func(*Config) time.Duration) setting {
		return setting{"20h0m0s", "21h0m0s", func(c *Config) any { return read(c) }}
	}
	settings := map[string]setting{
		"api-address":           text(func(c *Config) string { return c.APIAddress }),
		"proxy-address":         text(func(c *Config) string { return c.ProxyAddress }),
		"metrics-address":       text(func(c *Config) string { return c.MetricsAddress }),
		"kubeconfig":            text(func(c *Config) string { return c.Kubeconfig }),
		"namespace":             text(func(c *Config) string { return c.Namespace }),
		"instances-namespace":   text(func(c *Config) string { return c.InstancesNamespace }),
		"proxy-service":         text(func(c *Config) string { return c.ProxyService }),
		"public-host":           text(func(c *Config) string { return c.PublicHost }),
		"cors-allow-origin":     {"https://one:8443", "*", func(c *Config) any { return c.CORSAllowOrigins.String() }},
		"launch-page":           {"false", "true", func(c *Config) any { return c.LaunchPage }},
		"leader-election-lease": text(func(c *Config) string { return c.LeaseName }),
		"preload-helper-image":  text(func(c *Config) string { return c.PreloadHelperImage }),
		"api-key":               text(func(c *Config) string { return c.APIKey }),
		"api-key-file":          text(func(c *Config) string { return c.APIKeyFile }),
		"cull-timeout":          duration(func(c *Config) time.Duration { return c.CullTimeout }),
		"max-cull-timeout":      duration(func(c *Config) time.Duration { return c.MaxCullTimeout }),
		"max-age":               duration(func(c *Config) time.Duration { return c.MaxAge }),
		"cull-interval":         duration(func(c *Config) time.Duration { return c.CullInterval }),
		"start-timeout":         duration(func(c *Config) time.Duration { return c.StartTimeout }),
		"shutdown-delay":        duration(func(c *Config) time.Duration { return c.ShutdownDelay }),
		"drain-timeout":         duration(func(c *Config) time.Duration { return c.DrainTimeout }),
		"config":                {"one.json", "other.json", func(c *Config) any { return c.ConfigFile }},
		"registry-url":          {"http://one:8082", "https://other", func(c *Config) any { return c.RegistryURL }},
		"registry-api-key":      text(func(c *Config) string { return c.RegistryAPIKey }),
		"registry-api-key-file": text(func(c *Config) string { return c.RegistryAPIKeyFile }),
		"log-format":            {"json", "text", func(c *Config) any { return c.LogFormat }},
		"log-level":             {"WARN", "DEBUG", func(c *Config) any { return c.LogLevel }},
	}
	(&Config{}).Flags().VisitAll(func(f *flag.Flag) {
		if _, tested := settings[f.Name]; !tested && f.Name != "version" {
			t.Errorf("--%s is not tested here", f.Name)
		}
	})
	files := []string{"one=key", "other=key", "one.json={}", "other.json={}"} // for the flags that name one
	for name, s := range settings {
		env := "BINDER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		for _, test := range []struct {
			how  string
			args []string
			env  []string
			want string
		}{
			{"the flag", []string{"--" + name + "=" + s.value}, nil, s.value},
			{"the environment", nil, []string{env + "=" + s.value}, s.value},
			{"both", []string{"--" + name + "=" + s.value}, []string{env + "=" + s.other}, s.value},
		} {
			c := mustParse(t, hostWith(append(files, test.env...)...), test.args...)
			if got := fmt.Sprint(s.read(c)); got != test.want {
				t.Errorf("--%s by %s: got %q, want %q", name, test.how, got, test.want)
			}
		}
		if s.value != "false" { // a switch takes no second word
			c := mustParse(t, hostWith(files...), "--"+name, s.value)
			if got := fmt.Sprint(s.read(c)); got != s.value {
				t.Errorf("--%s in two words: got %q, want %q", name, got, s.value)
			}
		}
		// As good as none: manifests set variables that may be empty.
		empty := s.read(mustParse(t, hostWith(append(files, env+"=")...)))
		if unset := s.read(mustParse(t, hostWith(files...))); empty != unset {
			t.Errorf("with %s empty: got %q, want the default %q", env, empty, unset)
		}
	}
}

func TestConfigVersion(t *testing.T) {
	// Nothing else matters then, not even mistakes.
	c := mustParse(t, hostWith("BINDER_CULL_TIMEOUT=soon"), "--version", "--log-format=xml")
	if !c.Version || c.APIKey != "" {
		t.Errorf("got %+v", c)
	}
	if mustParse(t, hostWith("BINDER_VERSION=true")).Version {
		t.Error("a variable that others may set for their own ends is taken for the flag")
	}
}

func TestConfigHelp(t *testing.T) {
	var out bytes.Buffer
	c, err := Parse([]string{"--help"}, hostWith("BINDER_CULL_TIMEOUT=soon"), &out)
	if !errors.Is(err, flag.ErrHelp) || c != nil {
		t.Fatalf("got %+v, %v", c, err)
	}
	help := out.String()
	(&Config{}).Flags().VisitAll(func(f *flag.Flag) {
		_, text := flag.UnquoteUsage(f)
		// Its name on a line of its own, and below it what it is for.
		pattern := `(?m)^  --` + f.Name + ` ?\S*\n +` + regexp.QuoteMeta(text)
		if f.DefValue != "" && f.Name != "version" {
			pattern += regexp.QuoteMeta(" (default " + f.DefValue + ")")
		}
		if f.Name != "version" {
			pattern += regexp.QuoteMeta(" [$BINDER_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "]")
		}
		if !regexp.MustCompile(pattern + `\n`).MatchString(help) {
			t.Errorf("--%s is not in the help as %s:\n%s", f.Name, pattern, help)
		}
	})
}

// A mistake names its flag or variable, and says what would be right.
func TestConfigMistakes(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		env  []string
		want []string // are in the error
	}{
		{"unknown flag", []string{"--cull-tmeout=1h"}, nil, []string{"cull-tmeout", "--help"}},
		{"no duration", []string{"--cull-timeout=3600"}, nil, []string{"cull-timeout", `"3600"`, "--help"}},
		{"no level", []string{"--log-level=loud"}, nil, []string{"log-level", `"loud"`, "--help"}},
		{"flag without its value", []string{"--namespace"}, nil, []string{"namespace", "--help"}},
		{"an argument", []string{"start"}, nil, []string{`"start"`, "only flags"}},
		{"no duration in the environment", nil, []string{"BINDER_CULL_TIMEOUT=soon"}, []string{`BINDER_CULL_TIMEOUT="soon"`}},
		{"no level in the environment", nil, []string{"BINDER_LOG_LEVEL=loud"}, []string{`BINDER_LOG_LEVEL="loud"`}},
		{"no cull timeout", []string{"--cull-timeout=0"}, nil, []string{"--cull-timeout is 0s", "positive"}},
		{"no most cull timeout", []string{"--max-cull-timeout=-1s"}, nil, []string{"--max-cull-timeout is -1s", "positive"}},
		{"no cull interval", nil, []string{"BINDER_CULL_INTERVAL=0s"}, []string{"--cull-interval is 0s", "positive"}},
		{"no start timeout", []string{"--start-timeout=-5m"}, nil, []string{"--start-timeout is -5m0s", "positive"}},
		{"negative delay", []string{"--shutdown-delay=-1s"}, nil, []string{"--shutdown-delay", "negative"}},
		{"negative drain", []string{"--drain-timeout=-1s"}, nil, []string{"--drain-timeout", "negative"}},
		{"a negative max age", []string{"--max-age=-1s"}, nil, []string{"--max-age is -1s", "negative"}},
		{"the longest is not", []string{"--cull-timeout=2h", "--max-cull-timeout=1h"}, nil, []string{"--max-cull-timeout (1h0m0s)", "--cull-timeout (2h0m0s)"}},
		{"host with a scheme", []string{"--public-host=https://binder.org"}, nil, []string{`--public-host is "https://binder.org"`, "no scheme"}},
		{"host with a path", nil, []string{"BINDER_PUBLIC_HOST=binder.org/here"}, []string{`--public-host is "binder.org/here"`, "no path"}},
		{"unknown format", []string{"--log-format=xml"}, nil, []string{`--log-format is "xml"`, "auto, json or text"}},
		{"two keys", []string{"--api-key=a", "--api-key-file=f"}, []string{"f=b"}, []string{"--api-key and --api-key-file"}},
		{"two keys, one in the environment", []string{"--api-key-file=f"}, []string{"f=b", "BINDER_API_KEY=a"}, []string{"--api-key and --api-key-file"}},
		{"no key file", []string{"--api-key-file=f"}, nil, []string{"--api-key-file", "open f"}},
		{"empty key file", []string{"--api-key-file=f"}, []string{"f= \n"}, []string{"--api-key-file: f is empty"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := Parse(test.args, hostWith(test.env...), &out)
			if err == nil {
				t.Fatal("it is taken")
			}
			if out.Len() > 0 {
				t.Errorf("the help, which nobody asked for, is printed: %.40q", &out)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error is %q, want %s in it", err, part)
				}
			}
		})
	}
}

func TestConfigNamesAllMistakes(t *testing.T) {
	_, err := Parse(
		[]string{"--cull-interval=0", "--public-host=http://x", "--log-format=xml", "--api-key-file=f", "stray"},
		hostWith("BINDER_CULL_TIMEOUT=soon", "BINDER_LOG_LEVEL=loud"), io.Discard)
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, part := range []string{"--cull-interval", "--public-host", "--log-format", "--api-key-file", `"stray"`, "BINDER_CULL_TIMEOUT", "BINDER_LOG_LEVEL"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s is not in the error:\n%v", part, err)
		}
	}
}

func TestConfigPublicHost(t *testing.T) {
	for _, host := range []string{"binder.org", "binder.org:8080", "10.0.0.7", "[fd00::7]:8000", "localhost"} {
		if c := mustParse(t, hostWith(), "--public-host="+host); c.PublicHost != host {
			t.Errorf("got %q, want %q", c.PublicHost, host)
		}
	}
	for _, host := range []string{"http://binder.org", "binder.org/", "a b", "a?b", "a@b", "<script>"} {
		if _, err := Parse([]string{"--public-host=" + host}, hostWith(), io.Discard); err == nil {
			t.Errorf("%q is taken", host)
		}
	}
}

func TestConfigAPIKey(t *testing.T) {
	for _, test := range []struct {
		name        string
		args        []string
		Environment []string
		want        string
		generated   bool
	}{
		{"flag", []string{"--api-key=secret"}, nil, "secret", false},
		{"environment", nil, []string{"BINDER_API_KEY=secret"}, "secret", false},
		{"environment, of a file that ends with a newline", nil, []string{"BINDER_API_KEY=secret\n"}, "secret", false},
		{"file", []string{"--api-key-file=f"}, []string{"f= secret\n"}, "secret", false},
		{"file in the environment", nil, []string{"BINDER_API_KEY_FILE=f", "f=secret"}, "secret", false},
		{"none", nil, nil, strings.Repeat("ab", 32), true},
		{"blank", []string{"--api-key= "}, nil, strings.Repeat("ab", 32), true},
	} {
		c := mustParse(t, hostWith(test.Environment...), test.args...)
		if c.APIKey != test.want || c.APIKeyGenerated != test.generated {
			t.Errorf("%s: got %q, generated %t; want %q, %t", test.name, c.APIKey, c.APIKeyGenerated, test.want, test.generated)
		}
	}
	if one, two := mustParse(t, OSEnvironment()).APIKey, mustParse(t, OSEnvironment()).APIKey; one == two {
		t.Errorf("two keys are the same: %s", one)
	}
}

// Without randomness there is no key, and so no service.
func TestConfigNeedsRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	for name, random := range map[string]io.Reader{
		"none": iotest.ErrReader(broken),
		// Enough for the identity, but not for the key.
		"little": io.MultiReader(bytes.NewReader(make([]byte, 20)), iotest.ErrReader(broken)),
	} {
		from := hostWith()
		from.Random = random
		if c, err := Parse(nil, from, io.Discard); !errors.Is(err, broken) {
			t.Errorf("%s: got %+v and error %v", name, c, err)
		}
	}
}

func TestConfigNamespace(t *testing.T) {
	for _, test := range []struct {
		name        string
		args        []string
		Environment []string
		want        string
	}{
		{"the default", nil, nil, "binder"},
		{"the pod's own", nil, []string{podNamespaceFile + "=own\n"}, "own"},
		{"of the downward API", nil, []string{podNamespaceFile + "=own", "POD_NAMESPACE=told"}, "told"},
		{"the flag", []string{"--namespace=asked"}, []string{podNamespaceFile + "=own", "POD_NAMESPACE=told"}, "asked"},
		{"not this pod's for another cluster", []string{"--kubeconfig=k"}, []string{podNamespaceFile + "=own"}, "binder"},
	} {
		if c := mustParse(t, hostWith(test.Environment...), test.args...); c.Namespace != test.want {
			t.Errorf("%s: got %q, want %q", test.name, c.Namespace, test.want)
		}
	}
}

// Two replicas must not be one in the Lease, even on the same machine.
func TestConfigIdentity(t *testing.T) {
	if c := mustParse(t, hostWith("POD_NAME=binder-6d5f-x7")); c.Identity != "binder-6d5f-x7" {
		t.Errorf("got %q, want the pod's name", c.Identity)
	}
	one, two := mustParse(t, OSEnvironment()).Identity, mustParse(t, OSEnvironment()).Identity
	if one == two {
		t.Errorf("two processes are both %q", one)
	}
	nameless := hostWith()
	nameless.Hostname = func() (string, error) { return "", errors.New("no name") }
	if c := mustParse(t, nameless); c.Identity != "-abababab" {
		t.Errorf("got %q", c.Identity)
	}
}

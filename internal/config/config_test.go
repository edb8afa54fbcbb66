package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// testHost is a host named "machine" with environment variables and files. Each entry
// is NAME=value; the name of a file is its path.
func testHost(entries ...string) Environment {
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
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(content), nil
		},
		Hostname: func() (string, error) { return "machine", nil },
		Random:   bytes.NewReader(bytes.Repeat([]byte{0xab}, 1000)),
	}
}

// mustParse parses settings without a mistake.
func mustParse(t testing.TB, from Environment, args ...string) *Config {
	t.Helper()
	var out bytes.Buffer
	c, err := Parse(args, from, &out)
	if err != nil || out.Len() > 0 {
		t.Fatalf("%q: got error %v and output %q, want neither", args, err, &out)
	}
	return c
}

// wantMistakes parses settings with mistakes. It checks that the error contains each of
// want, and one line for each mistake.
func wantMistakes(t testing.TB, from Environment, args []string, mistakes int, want ...string) {
	t.Helper()
	var out bytes.Buffer
	c, err := Parse(args, from, &out)
	if err == nil || c != nil || out.Len() > 0 {
		t.Fatalf("%q: got %+v, error %v and output %q, want only an error", args, c, err, &out)
	}
	if got := strings.Count(err.Error(), "\n") + 1; got != mistakes {
		t.Errorf("%q: got %d errors, want %d:\n%v", args, got, mistakes, err)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q: the error lacks %s:\n%v", args, part, err)
		}
	}
}

func defaults() Config {
	return Config{
		APIAddress: ":8084", ProxyAddress: ":8000", MetricsAddress: ":9090", LaunchPage: true, BinderHub: true,
		Namespace: "binder", InstancesNamespace: "binder-instances", ProxyService: "binder-proxy",
		LeaseName: "binder-deploy-kubernetes", Identity: "machine-abababab",
		APIKeys: []string{strings.Repeat("ab", 32)}, APIKeyGenerated: true, Secret: strings.Repeat("ab", 32),
		PreloadHelperImage: "registry.k8s.io/pause:3.10.1",
		CullTimeout:        time.Hour, MinCullTimeout: time.Minute, MaxCullTimeout: 24 * time.Hour, MaxAge: 12 * time.Hour,
		CullWarning: 10 * time.Minute, CullInterval: 30 * time.Second, MaxFailedShare: 0.2, StartTimeout: 5 * time.Minute,
		ShutdownDelay: 5 * time.Second, DrainTimeout: 20 * time.Second,
		LaunchRate: 20, MaxInstancesPerClient: 10, Queue: true, MaxQueued: 1000, ProxyIdleTimeout: 5 * time.Minute,
		LogFormat: "auto", LogLevel: slog.LevelInfo,
	}
}

func TestDefaults(t *testing.T) {
	if got := *mustParse(t, testHost()); !reflect.DeepEqual(got, defaults()) {
		t.Errorf("got  %+v\nwant %+v", got, defaults())
	}
}

// Every setting is a flag and an environment variable, and sets one field.
func TestFlagsAndEnvironment(t *testing.T) {
	type setting struct {
		value, other, field string // both values differ from the default
	}
	settings := map[string]setting{
		"api-address":                  {"one", "other", "APIAddress"},
		"proxy-address":                {"one", "other", "ProxyAddress"},
		"metrics-address":              {"one", "other", "MetricsAddress"},
		"public-host":                  {"one", "other", "PublicHosts"},
		"instance-domain":              {"one.example", "other.example:8443", "InstanceDomain"},
		"cors-allow-origin":            {"https://one:8443", "*", "CORSAllowOrigins"},
		"frame-ancestors":              {"https://one:8443", "*", "FrameAncestors"},
		"hide-cookie":                  {"one", "other", "HideCookies"},
		"pages-dir":                    {"one", "other", "PagesDir"},
		"launch-page":                  {"false", "true", "LaunchPage"},
		"binderhub":                    {"false", "true", "BinderHub"},
		"pprof":                        {"true", "false", "Pprof"},
		"kubeconfig":                   {"one", "other", "Kubeconfig"},
		"namespace":                    {"one", "other", "Namespace"},
		"instances-namespace":          {"one", "other", "InstancesNamespace"},
		"proxy-service":                {"one", "other", "ProxyService"},
		"leader-election-lease":        {"one", "other", "LeaseName"},
		"api-key":                      {"one", "other", "APIKey"},
		"api-key-file":                 {"one", "other", "APIKeyFile"},
		"secret-file":                  {"one", "other", "SecretFile"},
		"registry-api-key":             {"one", "other", "RegistryAPIKey"},
		"registry-api-key-file":        {"one", "other", "RegistryAPIKeyFile"},
		"registry-url":                 {"http://one:8082", "https://other", "RegistryURL"},
		"preload-helper-image":         {"one", "other", "PreloadHelperImage"},
		"cull-timeout":                 {"20h0m0s", "21h0m0s", "CullTimeout"},
		"min-cull-timeout":             {"30m0s", "31m0s", "MinCullTimeout"},
		"max-cull-timeout":             {"20h0m0s", "21h0m0s", "MaxCullTimeout"},
		"cull-warning":                 {"7m0s", "0s", "CullWarning"},
		"max-age":                      {"20h0m0s", "21h0m0s", "MaxAge"},
		"cull-interval":                {"20h0m0s", "21h0m0s", "CullInterval"},
		"max-failed-share":             {"0.5", "1", "MaxFailedShare"},
		"start-timeout":                {"20h0m0s", "21h0m0s", "StartTimeout"},
		"shutdown-delay":               {"20h0m0s", "21h0m0s", "ShutdownDelay"},
		"drain-timeout":                {"20h0m0s", "21h0m0s", "DrainTimeout"},
		"log-format":                   {"json", "text", "LogFormat"},
		"log-level":                    {"WARN", "DEBUG", "LogLevel"},
		"config":                       {"one.json", "other.json", "ConfigFile"},
		"launch-rate":                  {"7", "8", "LaunchRate"},
		"max-instances":                {"7", "8", "MaxInstances"},
		"queue":                        {"false", "true", "Queue"},
		"max-queued":                   {"7", "8", "MaxQueued"},
		"trusted-proxies":              {"10.0.0.0/8", "fd00::/8", "TrustedProxies"},
		"max-instances-per-client":     {"7", "8", "MaxInstancesPerClient"},
		"pause-launches":               {"true", "false", "PauseLaunches"},
		"max-connections":              {"7", "8", "MaxConnections"},
		"max-connections-per-client":   {"7", "8", "MaxConnectionsPerClient"},
		"max-connections-per-instance": {"7", "8", "MaxConnectionsPerInstance"},
		"proxy-idle-timeout":           {"7m0s", "8m0s", "ProxyIdleTimeout"},
		"webhook-url":                  {"https://one/events?key=1", "http://other:8080", "WebhookURL"},
		"webhook-secret-file":          {"one", "other", "WebhookSecretFile"},
	}
	new(Config).Flags().VisitAll(func(f *flag.Flag) {
		if _, tested := settings[f.Name]; !tested && f.Name != "version" {
			t.Errorf("--%s is not tested here", f.Name)
		}
	})
	files := []string{"one=key", "other=key", "secret=0123456789abcdef", "one.json={}", "other.json={}"} // for the flags that name a file
	for name, s := range settings {
		env := EnvName(name)
		read := func(entry string, args ...string) string {
			if name == "instance-domain" {
				args = append(args, "--public-host=one") // which it needs
			}
			if name == "webhook-url" {
				args = append(args, "--webhook-secret-file=secret")
			}
			c := mustParse(t, testHost(append(files, entry)...), args...)
			return strings.Trim(fmt.Sprint(reflect.ValueOf(*c).FieldByName(s.field)), "[]") // a list of one
		}
		if got := read("", "--"+name+"="+s.value); got != s.value {
			t.Errorf("--%s=%s: got %q", name, s.value, got)
		}
		if got := read(env + "=" + s.value); got != s.value {
			t.Errorf("%s=%s: got %q", env, s.value, got)
		}
		if got := read(env+"="+s.other, "--"+name+"="+s.value); got != s.value {
			t.Errorf("%s=%s and --%s=%s: got %q, want the flag's", env, s.other, name, s.value, got)
		}
		if got, unset := read(env+"="), read(""); got != unset || got == s.value {
			t.Errorf("%s is empty: got %q, want the default %q", env, got, unset)
		}
	}
}

// What is asked for first is answered, whatever else is wrong.
func TestVersionAndHelpComeFirst(t *testing.T) {
	wrong := testHost("BINDER_CULL_TIMEOUT=soon")
	if c := mustParse(t, wrong, "--version", "--log-format=xml"); !c.Version {
		t.Errorf("got %+v", c)
	}
	if mustParse(t, testHost("BINDER_VERSION=true")).Version {
		t.Error("BINDER_VERSION, which can be set for other reasons, counts as the flag")
	}
	var out bytes.Buffer
	if c, err := Parse([]string{"--help"}, wrong, &out); !errors.Is(err, flag.ErrHelp) || c != nil || out.Len() == 0 {
		t.Errorf("--help: got %+v, %v and %d bytes", c, err, out.Len())
	}
}

// An error names the flag or the variable, and says what is allowed.
func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		arg  string
		host []string
		want []string
	}{
		{"--cull-tmeout=1h", nil, []string{"cull-tmeout", "--help"}},
		{"--cull-timeout=3600", nil, []string{"-cull-timeout", `"3600"`, "90s", "--help"}},
		{"--launch-page=maybe", nil, []string{"-launch-page", `"maybe"`, "true or false"}},
		{"--log-level=loud", nil, []string{"-log-level", `"loud"`, "debug, info, warn or error", "--help"}},
		{"--namespace", nil, []string{"namespace", "--help"}},
		{"start", nil, []string{`"start"`, "only flags"}},
		{"--", []string{"BINDER_CULL_TIMEOUT=soon"}, []string{`BINDER_CULL_TIMEOUT="soon"`, "30m"}},
		{"--max-cull-timeout=30m", []string{"BINDER_CULL_TIMEOUT=soon"}, []string{`BINDER_CULL_TIMEOUT="soon"`}},
		{"--", []string{"BINDER_LOG_LEVEL=loud"}, []string{`BINDER_LOG_LEVEL="loud"`, "debug, info, warn or error"}},
		{"--", []string{"BINDER_LAUNCH_PAGE=maybe"}, []string{`BINDER_LAUNCH_PAGE="maybe"`, "true or false"}},
		{"--cull-timeout=0", nil, []string{"--cull-timeout is 0s", "positive"}},
		{"--min-cull-timeout=0", nil, []string{"--min-cull-timeout is 0s", "positive"}},
		{"--min-cull-timeout=61m", nil, []string{"--min-cull-timeout (1h1m0s)", "--cull-timeout (1h0m0s)"}},
		{"--cull-timeout=59s", nil, []string{"--min-cull-timeout (1m0s)", "--cull-timeout (59s)"}},
		{"--max-cull-timeout=-1s", nil, []string{"--max-cull-timeout is -1s", "positive"}},
		{"--", []string{"BINDER_CULL_INTERVAL=0s"}, []string{"--cull-interval is 0s", "positive"}},
		{"--max-failed-share=1.5", nil, []string{"-max-failed-share", `"1.5"`, "a number from 0 to 1"}},
		{"--max-failed-share=NaN", nil, []string{"-max-failed-share", `"NaN"`, "a number from 0 to 1"}},
		{"--", []string{"BINDER_MAX_FAILED_SHARE=20%"}, []string{`BINDER_MAX_FAILED_SHARE="20%"`, "a number from 0 to 1"}},
		{"--start-timeout=-5m", nil, []string{"--start-timeout is -5m0s", "positive"}},
		{"--shutdown-delay=-1s", nil, []string{"--shutdown-delay is -1s", "negative"}},
		{"--drain-timeout=-1s", nil, []string{"--drain-timeout is -1s", "negative"}},
		{"--max-age=-1s", nil, []string{"--max-age is -1s", "negative"}},
		{"--launch-rate=-1", nil, []string{"--launch-rate is -1", "negative", "no limit"}},
		{"--max-instances-per-client=-1", nil, []string{"--max-instances-per-client is -1", "negative"}},
		{"--max-connections=-1", nil, []string{"--max-connections is -1", "negative"}},
		{"--max-connections-per-client=-1", nil, []string{"--max-connections-per-client is -1", "negative"}},
		{"--max-connections-per-instance=-1", nil, []string{"--max-connections-per-instance is -1", "negative"}},
		{"--proxy-idle-timeout=0s", nil, []string{"--proxy-idle-timeout is 0s", "positive"}},
		{"--max-instances=-1", nil, []string{"--max-instances is -1", "negative"}},
		{"--launch-rate=many", nil, []string{"-launch-rate", `"many"`, "a whole number"}},
		{"--", []string{"BINDER_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, []string{"BINDER_TRUSTED_PROXIES", `"proxy"`, "10.0.0.0/8"}},
		{"--max-cull-timeout=59m", nil, []string{"--max-cull-timeout (59m0s)", "--cull-timeout (1h0m0s)"}},
		{"--public-host=https://binder.org", nil, []string{`--public-host is "https://binder.org"`, "no scheme"}},
		{"--", []string{"BINDER_PUBLIC_HOST=binder.org/here"}, []string{`--public-host is "binder.org/here"`, "no path"}},
		{"--preload-helper-image=", nil, []string{`--preload-helper-image is ""`, "an image"}},
		{"--preload-helper-image=a b", nil, []string{`--preload-helper-image is "a b"`, "an image"}},
		{"--log-format=xml", nil, []string{`--log-format is "xml"`, "auto, json or text"}},
		{"--api-key-file=f", []string{"f=b", "BINDER_API_KEY=a"}, []string{"--api-key and --api-key-file"}},
		{"--api-key-file=f", nil, []string{"--api-key-file", "open f"}},
		{"--api-key-file=f", []string{"f= \n"}, []string{"--api-key-file: f is empty"}},
		{"--api-key-file=f", []string{"f=# the new key\nb"}, []string{"--api-key-file", "visible ASCII"}},
		{"--api-key=é", nil, []string{"--api-key", "visible ASCII"}},
		{"--secret-file=f", nil, []string{"--secret-file", "open f"}},
		{"--secret-file=f", []string{"f=\n"}, []string{"--secret-file: f is empty"}},
		{"--registry-api-key-file=f", []string{"f=b", "BINDER_REGISTRY_API_KEY=a"}, []string{"--registry-api-key and --registry-api-key-file"}},
		{"--registry-api-key-file=f", []string{"f="}, []string{"--registry-api-key-file: f is empty"}},
		{"--registry-api-key-file=f", nil, []string{"--registry-api-key-file", "open f"}},
		{"--config=f", nil, []string{"--config", "open f"}},
	} {
		t.Run(strings.Join(append(test.host, test.arg), " "), func(t *testing.T) {
			wantMistakes(t, testHost(test.host...), []string{test.arg}, 1, test.want...)
		})
	}
}

// One error names all mistakes, each once.
func TestAllMistakesAreNamed(t *testing.T) {
	wantMistakes(t, testHost("BINDER_CULL_TIMEOUT=soon", "BINDER_LOG_LEVEL=loud", `settings={"port": 0}`),
		[]string{"--cull-interval=0", "--public-host=http://x", "--log-format=xml", "--api-key-file=f", "--cors-allow-origin=a,b", "--config=settings", "stray"},
		10, "--cull-interval", "--public-host", "--log-format", "--api-key-file", `"a"`, `"b"`, "port is 0", `"stray"`, "BINDER_CULL_TIMEOUT", "BINDER_LOG_LEVEL")
}

func TestPublicHost(t *testing.T) {
	for _, host := range []string{"binder.org", "binder.org:8080", "10.0.0.7", "[fd00::7]:8000", "localhost"} {
		if c := mustParse(t, testHost(), "--public-host="+host); strings.Join(c.PublicHosts, ",") != host {
			t.Errorf("got %q, want %q", c.PublicHosts, host)
		}
	}
	for _, host := range []string{"http://binder.org", "binder.org/", "a b", "a?b", "a@b", "<script>"} {
		wantMistakes(t, testHost(), []string{"--public-host=" + host}, 1, "--public-host")
	}
}

func TestTrustedProxies(t *testing.T) {
	for given, want := range map[string]string{
		"10.0.0.0/8":           "[10.0.0.0/8]",
		"10.1.2.3/8":           "[10.0.0.0/8]",
		"192.0.2.7":            "[192.0.2.7/32]",
		"2001:db8::7":          "[2001:db8::7/128]",
		"10.0.0.0/8, fd00::/8": "[10.0.0.0/8 fd00::/8]",
	} {
		if c := mustParse(t, testHost(), "--trusted-proxies="+given); fmt.Sprint(c.TrustedProxies) != want {
			t.Errorf("%q: got %v, want %s", given, c.TrustedProxies, want)
		}
	}
	if c := mustParse(t, testHost(), "--trusted-proxies=10.0.0.0/8", "--trusted-proxies=192.0.2.7"); len(c.TrustedProxies) != 2 {
		t.Errorf("the flag twice: got %v", c.TrustedProxies)
	}
	for _, wrong := range []string{
		"0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/8,", "proxy", "10.0.0.1:80", "fe80::1%eth0", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1",
	} {
		wantMistakes(t, testHost(), []string{"--trusted-proxies=" + wrong}, 1, "trusted-proxies")
	}
}

func TestAPIKeys(t *testing.T) {
	random := strings.Repeat("ab", 32)
	const https, http = "--registry-url=https://registry", "--registry-url=http://registry"
	for _, test := range []struct {
		args, host    []string
		keys          string // with spaces between them
		registry      string
		registryWarns bool
	}{
		{[]string{https}, nil, random, "", false}, // a random key means nothing to a registry
		{[]string{https, "--api-key= "}, nil, random, "", false},
		{[]string{"--api-key=own"}, nil, "own", "", false},
		{[]string{https, "--api-key=own"}, nil, "own", "own", false},
		{[]string{"--registry-url=HTTPS://registry", "--api-key=own"}, nil, "own", "own", false},
		{[]string{http, "--api-key=own"}, nil, "own", "", true},
		{[]string{http}, []string{"BINDER_API_KEY_FILE=f", "f=own\nold"}, "own old", "", true},
		{[]string{http, "--api-key=own", "--registry-api-key=own"}, nil, "own", "own", false},
		{[]string{http, "--api-key=own"}, []string{"BINDER_REGISTRY_API_KEY=other\n"}, "own", "other", false},
		{[]string{http, "--api-key-file=f", "--registry-api-key-file=f"}, []string{"f=own\nold"}, "own old", "own", false},
		{nil, []string{"BINDER_API_KEY=own\n"}, "own", "", false},
		{[]string{"--api-key-file=f"}, []string{"f= own\n"}, "own", "", false},
		{[]string{https, "--api-key-file=f"}, []string{"f=\n own \r\n\n\told\n"}, "own old", "own", false},
		{[]string{https, "--api-key=own", "--registry-api-key=other"}, nil, "own", "other", false},
		{[]string{"--registry-api-key-file=f"}, []string{"f=other\n"}, random, "other", false},
	} {
		c := mustParse(t, testHost(test.host...), test.args...)
		if got := strings.Join(c.APIKeys, " "); got != test.keys || c.RegistryAPIKey != test.registry || c.APIKeyGenerated != (got == random) {
			t.Errorf("%q, %q: got %q, generated %t, and %q for the registry", test.args, test.host, got, c.APIKeyGenerated, c.RegistryAPIKey)
		}
		if warns := len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], "--registry-api-key"); warns != test.registryWarns {
			t.Errorf("%q, %q: got warnings %q", test.args, test.host, c.Warnings)
		}
	}
}

// In a cluster, a key or secret that is missing, empty or short is a mistake: each replica
// would make up its own, or strangers would guess it.
func TestKeysInACluster(t *testing.T) {
	const good, short = "0123456789abcdef", "0123456789abcde"
	for _, test := range []struct {
		args     []string
		host     []string
		mistakes []string // the flag that each names first
	}{
		{nil, nil, []string{"--api-key-file", "--secret-file"}},
		{[]string{"--kubeconfig=k"}, nil, []string{"--api-key-file", "--secret-file"}},
		{nil, []string{"BINDER_API_KEY=", "BINDER_SECRET_FILE="}, []string{"--api-key-file", "--secret-file"}},
		{[]string{"--api-key=" + good, "--secret-file=s"}, nil, nil},
		{[]string{"--api-key=" + short, "--secret-file=s"}, nil, []string{"--api-key "}},
		{[]string{"--api-key-file=f", "--secret-file=s"}, []string{"f=" + good + "\n" + good + "x"}, nil},
		{[]string{"--api-key-file=f", "--secret-file=s"}, []string{"f=" + good + "\n" + short}, []string{"--api-key-file: key 2 of f"}},
		{[]string{"--api-key-file=f", "--secret-file=s"}, []string{"f=a"}, []string{"--api-key-file: key 1 of f"}},
		{[]string{"--api-key-file=f", "--secret-file=s"}, []string{"f=\n"}, []string{"--api-key-file: f is empty"}},
		{[]string{"--api-key=" + good, "--secret-file=f"}, []string{"f=" + short + "\n"}, []string{"--secret-file: f has less"}},
		{[]string{"--api-key=" + good, "--secret-file=f"}, []string{"f= "}, []string{"--secret-file: f is empty"}},
	} {
		from := testHost(append(test.host, "KUBERNETES_SERVICE_HOST=10.0.0.1", "s=another "+good)...)
		if len(test.mistakes) > 0 {
			wantMistakes(t, from, test.args, len(test.mistakes), test.mistakes...)
			_, err := Parse(test.args, from, io.Discard)
			if strings.Contains(err.Error(), short) {
				t.Errorf("the error shows a key: %v", err)
			}
			continue
		}
		if c := mustParse(t, from, test.args...); c.Secret != "another "+good || c.APIKeys[0] != good {
			t.Errorf("%q: got keys %q and secret %q", test.args, c.APIKeys, c.Secret)
		}
	}
}

// Random keys and identities differ between processes. Without randomness there is
// no service.
func TestRandomness(t *testing.T) {
	one, two := mustParse(t, OSEnvironment()), mustParse(t, OSEnvironment())
	if one.APIKeys[0] == two.APIKeys[0] || one.Secret == two.Secret || one.Identity == two.Identity || one.Secret == one.APIKeys[0] {
		t.Errorf("got the keys %s and %s, the secrets %s and %s and the identities %s and %s, want different ones",
			one.APIKeys, two.APIKeys, one.Secret, two.Secret, one.Identity, two.Identity)
	}
	broken := errors.New("no entropy")
	for _, good := range []int64{0, 20, 50} { // enough for nothing, for the identity, and for the key too
		from := testHost()
		from.Random = io.MultiReader(bytes.NewReader(make([]byte, good)), iotest.ErrReader(broken))
		if c, err := Parse(nil, from, io.Discard); !errors.Is(err, broken) {
			t.Errorf("after %d random bytes: got %+v and error %v", good, c, err)
		}
	}
}

func TestNamespace(t *testing.T) {
	own := serviceAccountNamespace + "=own\n"
	for _, test := range []struct {
		arg  string
		host []string
		want string
	}{
		{"--", nil, "binder"},
		{"--", []string{own}, "own"},
		{"--", []string{own, "POD_NAMESPACE=told"}, "told"},
		{"--namespace=asked", []string{own, "POD_NAMESPACE=told"}, "asked"},
		{"--kubeconfig=k", []string{own}, "binder"}, // this pod is in another cluster
	} {
		if c := mustParse(t, testHost(test.host...), test.arg); c.Namespace != test.want {
			t.Errorf("%q, %q: got %q, want %q", test.arg, test.host, c.Namespace, test.want)
		}
	}
}

func TestIdentity(t *testing.T) {
	nameless := testHost()
	nameless.Hostname = func() (string, error) { return "", errors.New("no name") }
	for want, from := range map[string]Environment{
		"binder-6d5f-x7":   testHost("POD_NAME=binder-6d5f-x7"),
		"machine-abababab": testHost(),
		"-abababab":        nameless,
	} {
		if c := mustParse(t, from); c.Identity != want {
			t.Errorf("got %q, want %q", c.Identity, want)
		}
	}
}

func TestRegistryURL(t *testing.T) {
	for _, good := range []string{
		"http://registry:8082", "http://registry", "https://registry.example.com/", "http://10.0.0.1:80/base", "http://[::1]:8082", "HTTP://x",
	} {
		if c := mustParse(t, testHost(), "--registry-url="+good); c.RegistryURL != good {
			t.Errorf("got %q, want %q", c.RegistryURL, good)
		}
	}
	for _, bad := range []string{
		"registry", "registry:8082", "//registry", "http://", "http:///x", "http:registry", "ftp://registry", "unix:///x",
		"http://registry:0", "http://registry:65536", "http://registry:x", "http://reg istry", "http://registry?x", "http://registry/?", "http://registry#",
	} {
		wantMistakes(t, testHost(), []string{"--registry-url=" + bad}, 1, "--registry-url is", "http://registry:8082")
	}
	for _, secret := range []string{"http://user:password@registry", "http://user:password@reg istry"} {
		_, err := Parse([]string{"--registry-url=" + secret}, testHost(), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "--registry-api-key") || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: got error %v, want one without the password", secret, err)
		}
	}
}

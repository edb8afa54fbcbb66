package config

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Config is every setting. Each is a flag and an environment variable; the flag
// goes first. A few can be in a settings file, which goes last.
type Config struct {
	ConfigFile string // the Node server's

	APIAddress     string
	ProxyAddress   string
	MetricsAddress string

	Kubeconfig         string // "" means: as the pod's service account
	Namespace          string // the controller's own: its Lease, the proxy's Service
	InstancesNamespace string
	ProxyService       string
	PublicHost         string
	CORSAllowOrigins   originList
	LaunchPage         bool
	LeaseName          string
	Identity           string // of this replica, in the Lease

	PreloadHelperImage string // what waits in the pods that pull images

	APIKey          string
	APIKeyFile      string
	APIKeyGenerated bool // nobody set one: to be printed, once

	RegistryURL        string // "" means: templates are only in the cluster
	RegistryAPIKey     string // "" means: none is shown
	RegistryAPIKeyFile string

	CullTimeout    time.Duration
	MaxCullTimeout time.Duration
	MaxAge         time.Duration // 0 is none
	CullInterval   time.Duration
	StartTimeout   time.Duration
	ShutdownDelay  time.Duration
	DrainTimeout   time.Duration

	LogFormat string
	LogLevel  slog.Level
	Version   bool // print the version and end

	// Warning is for the log, once there is one; "" is none.
	Warning string
}

const (
	envPrefix = "BINDER_"

	// serviceAccountNamespace is where the kubelet tells a pod its namespace.
	serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// Environment is what configuration reads from outside its arguments.
type Environment struct {
	Env      func(string) (string, bool)
	ReadFile func(string) ([]byte, error)
	Hostname func() (string, error)
	Random   io.Reader
}

func OSEnvironment() Environment {
	return Environment{Env: os.LookupEnv, ReadFile: os.ReadFile, Hostname: os.Hostname, Random: rand.Reader}
}

// Parse reads the command line, then the environment, then the settings
// file, and checks all of it; the error names every mistake at once. It is
// flag.ErrHelp when help was asked for, which has then been written to out.
func Parse(args []string, from Environment, out io.Writer) (*Config, error) {
	c := &Config{}
	flags := c.Flags()
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			usage(flags, out)
			return nil, err
		}
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	}
	if c.Version {
		return c, nil
	}
	errs := []error{fromEnvironment(flags, from.Env), c.fromSettingsFile(flags, from.ReadFile)}
	if rest := flags.Args(); len(rest) > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: there are only flags", rest[0]))
	}
	errs = append(errs, c.complete(from), c.validate())
	return c, errors.Join(errs...)
}

func (c *Config) Flags() *flag.FlagSet {
	f := flag.NewFlagSet("binder-deploy-kubernetes", flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are returned
	f.Usage = func() {}     // is called for each mistake, too

	f.StringVar(&c.ConfigFile, "config", "", "settings `file` of the Node server, in JSON: port, lookupHost, registry.host and registry.port are read; flags and environment go first")
	f.StringVar(&c.APIAddress, "api-address", ":8084", "`address` of the Binder deploy API")
	f.StringVar(&c.ProxyAddress, "proxy-address", ":8000", "`address` of the proxy that visitors reach instances by")
	f.StringVar(&c.MetricsAddress, "metrics-address", ":9090", "`address` of /metrics, /healthz and /readyz")

	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig `file`, to run outside a cluster (default: the pod's service account)")
	f.StringVar(&c.Namespace, "namespace", "", "`namespace` of the Lease and of the proxy's Service (default: $POD_NAMESPACE, else the pod's own, else binder)")
	f.StringVar(&c.InstancesNamespace, "instances-namespace", "binder-instances", "`namespace` of instances, templates and tombstones")
	f.StringVar(&c.ProxyService, "proxy-service", "binder-proxy", "`name` of the Service whose ingress address instances are found at")
	f.StringVar(&c.PublicHost, "public-host", "", "`host[:port]` that instances are found at, instead of the proxy Service's")
	f.Var(&c.CORSAllowOrigins, "cors-allow-origin", "`origin` whose pages may call the API from a browser, scheme://host[:port], or * for all; may be repeated, or hold several with commas between (default: none)")
	f.BoolVar(&c.LaunchPage, "launch-page", true, "serve /launch/<template> on the proxy's address: the page that launches and shows progress")
	f.StringVar(&c.LeaseName, "leader-election-lease", "binder-deploy-kubernetes", "`name` of the Lease by which replicas elect who culls, and keeps pools and preloads")

	f.StringVar(&c.PreloadHelperImage, "preload-helper-image", "registry.k8s.io/pause:3.10.1", "`image` that waits in the pods that preload templates: one that ends on SIGTERM and does nothing else")

	f.StringVar(&c.APIKey, "api-key", "", "`key` that authorised requests must show; better in the environment or a file, for command lines can be seen by others (default: a random one, printed at start)")
	f.StringVar(&c.APIKeyFile, "api-key-file", "", "`file` that holds the API key")

	f.StringVar(&c.RegistryURL, "registry-url", "", "base `URL` of a Binder registry, asked for templates that are not in the cluster, such as http://registry:8082")
	f.StringVar(&c.RegistryAPIKey, "registry-api-key", "", "`key` that the registry is shown (default: the service's own, if it was given one: a Binder shares one key)")
	f.StringVar(&c.RegistryAPIKeyFile, "registry-api-key-file", "", "`file` that holds the registry's API key")

	f.DurationVar(&c.CullTimeout, "cull-timeout", time.Hour, "how long an instance may be idle where neither its launch nor its template says")
	f.DurationVar(&c.MaxCullTimeout, "max-cull-timeout", 24*time.Hour, "the longest cull timeout that a launch may ask for")
	f.DurationVar(&c.MaxAge, "max-age", 0, "how long an instance may live, however active; 0 is no limit. A template's own can only be shorter")
	f.DurationVar(&c.CullInterval, "cull-interval", 30*time.Second, "how often it is looked for instances that are over")
	f.DurationVar(&c.StartTimeout, "start-timeout", 5*time.Minute, "how long an instance may take to become ready before it is called failed")
	f.DurationVar(&c.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long to go on serving after SIGTERM, unready, until load balancers have noticed")
	f.DurationVar(&c.DrainTimeout, "drain-timeout", 20*time.Second, "how long requests under way may take to end after that")

	f.StringVar(&c.LogFormat, "log-format", "auto", "json, text, or auto: text on a terminal, else json")
	f.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "least `level` that is logged: debug, info, warn or error")
	f.BoolVar(&c.Version, "version", false, "print the version and exit")
	return f
}

// EnvName is the environment variable of a flag: --api-key is BINDER_API_KEY.
func EnvName(flagName string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// fromEnvironment sets the flags that the command line did not.
func fromEnvironment(flags *flag.FlagSet, env func(string) (string, bool)) error {
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	flags.VisitAll(func(f *flag.Flag) {
		value, ok := env(EnvName(f.Name))
		if !ok || value == "" || given[f.Name] || f.Name == "version" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", EnvName(f.Name), value, err))
		}
	})
	return errors.Join(errs...)
}

// complete fills in what depends on where the process runs.
func (c *Config) complete(from Environment) error {
	var errs []error
	if c.Namespace == "" {
		c.Namespace, _ = from.Env("POD_NAMESPACE")
	}
	if c.Namespace == "" && c.Kubeconfig == "" {
		own, _ := from.ReadFile(serviceAccountNamespace) // absent outside a cluster
		c.Namespace = strings.TrimSpace(string(own))
	}
	c.Namespace = cmp.Or(c.Namespace, "binder")

	var suffix [4]byte
	if _, err := io.ReadFull(from.Random, suffix[:]); err != nil {
		return fmt.Errorf("read random bytes for this replica's identity: %w", err)
	}
	if c.Identity, _ = from.Env("POD_NAME"); c.Identity == "" {
		name, _ := from.Hostname()
		c.Identity = name + "-" + hex.EncodeToString(suffix[:]) // two may run on one host
	}
	errs = append(errs, c.completeAPIKey(from), c.completeRegistryAPIKey(from))
	for i, origin := range c.CORSAllowOrigins {
		var err error
		if c.CORSAllowOrigins[i], err = parseOrigin(origin); err != nil {
			errs = append(errs, fmt.Errorf("--cors-allow-origin: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) completeAPIKey(from Environment) error {
	var err error
	if c.APIKey, err = readKey("api-key", c.APIKey, c.APIKeyFile, from.ReadFile); err != nil || c.APIKey != "" {
		return err
	}
	var raw [32]byte
	if _, err := io.ReadFull(from.Random, raw[:]); err != nil {
		return fmt.Errorf("make an API key: %w", err)
	}
	c.APIKey, c.APIKeyGenerated = hex.EncodeToString(raw[:]), true
	return nil
}

// readKey returns the key that a flag holds, or a file that --<flag>-file names.
func readKey(flagName, key, file string, readFile func(string) ([]byte, error)) (string, error) {
	key = strings.TrimSpace(key) // a Secret made of a file often ends with a newline
	switch {
	case file == "":
		return key, nil
	case key != "":
		return key, fmt.Errorf("--%s and --%s-file: give one of them", flagName, flagName)
	}
	data, err := readFile(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", flagName, err)
	}
	if key = strings.TrimSpace(string(data)); key == "" {
		return "", fmt.Errorf("--%s-file: %s is empty", flagName, file)
	}
	return key, nil
}

var publicHostPattern = regexp.MustCompile(`^[A-Za-z0-9._\[\]:-]+$`)

// validate checks what no single flag can.
func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	positive := func(name string, d time.Duration) {
		if d <= 0 {
			bad("--%s is %s: it must be positive", name, d)
		}
	}
	positive("cull-timeout", c.CullTimeout)
	positive("max-cull-timeout", c.MaxCullTimeout)
	positive("cull-interval", c.CullInterval)
	positive("start-timeout", c.StartTimeout)
	if c.ShutdownDelay < 0 || c.DrainTimeout < 0 {
		bad("--shutdown-delay and --drain-timeout must not be negative")
	}
	if c.MaxAge < 0 {
		bad("--max-age is %s: it must not be negative", c.MaxAge)
	}
	if c.MaxCullTimeout < c.CullTimeout {
		bad("--max-cull-timeout (%s) must not be shorter than --cull-timeout (%s)", c.MaxCullTimeout, c.CullTimeout)
	}
	if c.PublicHost != "" && !publicHostPattern.MatchString(c.PublicHost) {
		bad("--public-host is %q: it must be host or host:port, with no scheme and no path", c.PublicHost)
	}
	errs = append(errs, c.checkRegistryURL())
	if c.PreloadHelperImage == "" || strings.ContainsFunc(c.PreloadHelperImage, unicode.IsSpace) {
		bad("--preload-helper-image is %q: it must be an image", c.PreloadHelperImage)
	}
	switch c.LogFormat {
	case "auto", "json", "text":
	default:
		bad("--log-format is %q: it must be auto, json or text", c.LogFormat)
	}
	return errors.Join(errs...)
}

// usage prints the flags as they are written, with the environment beside them.
func usage(f *flag.FlagSet, out io.Writer) {
	fmt.Fprint(out, `binder-deploy-kubernetes launches a container per visitor on Kubernetes, says
where it is, routes the browser to it, and deletes it when it has been idle.

It keeps no state of its own: templates are PodTemplates, or a Binder registry's, and what is known of
an instance is on its pod. Run as many replicas as you like.

Usage:
  binder-deploy-kubernetes [flags]                     in a cluster
  binder-deploy-kubernetes --kubeconfig FILE [flags]   outside one

Flags, each with the environment variable that sets it as well:
`)
	f.VisitAll(func(fl *flag.Flag) {
		placeholder, text := flag.UnquoteUsage(fl)
		name := strings.TrimSpace(fl.Name + " " + placeholder) // a switch has none
		fmt.Fprintf(out, "  --%s\n        %s", name, text)
		if fl.DefValue != "" && fl.DefValue != "false" {
			fmt.Fprintf(out, " (default %s)", fl.DefValue)
		}
		if fl.Name != "version" {
			fmt.Fprintf(out, " [$%s]", EnvName(fl.Name))
		}
		fmt.Fprintln(out)
	})
}

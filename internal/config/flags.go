package config

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"
)

// versionFlag is the only flag without an environment variable: BINDER_VERSION may well
// be set for other reasons.
const versionFlag = "version"

// flagGroup is the flags under one heading of the help.
type flagGroup struct {
	heading string
	define  func(*flag.FlagSet)
}

func (c *Config) flagGroups() []flagGroup {
	return []flagGroup{
		{"Listen", c.listenFlags},
		{"Cluster", c.clusterFlags},
		{"Keys", c.keyFlags},
		{"Templates", c.templateFlags},
		{"Lifetimes", c.lifetimeFlags},
		{"Limits", c.limitFlags},
		{"Webhook", c.webhookFlags},
		{"Logging", c.loggingFlags},
		{"Other", c.otherFlags},
	}
}

// Flags returns all flags, with their defaults. Defining them sets every field of c
// that has a flag to its default.
func (c *Config) Flags() *flag.FlagSet {
	f := flag.NewFlagSet("binder-deploy-kubernetes", flag.ContinueOnError)
	f.SetOutput(io.Discard) // Parse returns errors, and writes the help
	f.Usage = func() {}
	for _, group := range c.flagGroups() {
		group.define(f)
	}
	return f
}

func (c *Config) listenFlags(f *flag.FlagSet) {
	f.StringVar(&c.APIAddress, "api-address", ":8084",
		"`address` of the Binder deploy API, as host:port, or :port for all interfaces. Launching needs no key: decide who can reach it")
	f.StringVar(&c.ProxyAddress, "proxy-address", ":8000",
		"`address` of the proxy, through which visitors reach instances at /user/<id>/")
	f.StringVar(&c.MetricsAddress, "metrics-address", ":9090",
		"`address` of /metrics, /healthz and /readyz, for Prometheus and the kubelet")
	f.Var(newSwitch(&c.Pprof, false), "pprof",
		"serve profiles of the process at /debug/pprof/ on the address of the metrics. Anyone who can reach it can slow the process down")
	c.hostFlags(f)
	f.Var((*list)(&c.CORSAllowOrigins), "cors-allow-origin",
		"`origin` whose pages can call the API, launch and use instances by scripts, as scheme://host[:port], or * for all. "+
			"Repeat the flag, or separate several origins by commas (default: none)")
	f.Var((*list)(&c.FrameAncestors), "frame-ancestors",
		"`origin` whose pages can show a starting instance's progress and the notices of instances in a frame, as "+
			"scheme://host[:port], or * for all. Repeat the flag, or separate several origins by commas (default: only the proxy's own)")
	f.Var((*list)(&c.HideCookies), "hide-cookie",
		"`name` of a cookie that no instance sees or sets, such as that of a login in front of this service. A star at the "+
			"end stands for any ending. Repeat the flag, or separate several names by commas (default: none)")
	f.StringVar(&c.PagesDir, "pages-dir", "",
		"`directory` with files that replace those of the same names of the visitors' pages, such as style.css, start.html or "+
			"language.de.json. They are read at the start (default: none)")
	f.Var(newSwitch(&c.LaunchPage, true), "launch-page",
		"serve the page that launches an instance and shows progress, /launch/<template>, on the proxy's address. "+
			"With it, anyone who can reach the proxy can launch; --launch-page=false turns it off, and --binderhub with it")
	f.Var(newSwitch(&c.BinderHub, true), "binderhub",
		"answer the clients of BinderHub (thebe, MyST, badges, binderhub-client) on the proxy's address: /build/, /v2/, /repo/, "+
			"/badge.svg, /badge_logo.svg, /versions, /health. It needs --launch-page")
}

func (c *Config) clusterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Kubeconfig, "kubeconfig", "",
		"kubeconfig `file`, to run outside a cluster. The proxy must be able to reach the IP addresses of pods "+
			"(default: the pod's service account)")
	f.StringVar(&c.Namespace, "namespace", "",
		"`namespace` of the Lease and of the proxy's Service (default: $POD_NAMESPACE, else the pod's own namespace, else binder)")
	f.StringVar(&c.InstancesNamespace, "instances-namespace", "binder-instances",
		"`namespace` of instances, PodTemplates and tombstones. After a change, instances in the old namespace are no longer "+
			"seen, and never deleted")
	f.StringVar(&c.ProxyService, "proxy-service", "binder-proxy",
		"`name` of the Service in front of the proxy. The address of its load balancer is the host of every instance's location, "+
			"unless --public-host is set")
	f.StringVar(&c.LeaseName, "leader-election-lease", "binder-deploy-kubernetes",
		"`name` of the Lease by which replicas elect the leader, which culls and keeps warm pods and preloads. "+
			"All replicas must use the same")
}

func (c *Config) keyFlags(f *flag.FlagSet) {
	f.StringVar(&c.APIKey, "api-key", "",
		"`key` that authorised API requests must carry. All replicas need the same. Prefer the environment or a file: "+
			"others on the machine can see command lines (default: a random key, printed at start; in a cluster, one must be set)")
	f.StringVar(&c.APIKeyFile, "api-key-file", "",
		"`file` that holds the API key, instead of --api-key, or several keys, one in a line, which are all valid. "+
			"It is read again when it changes")
	f.StringVar(&c.SecretFile, "secret-file", "",
		"`file` that holds a long random text, with which ids of repeatable launches are made. All replicas need the same "+
			"(default: a random one, until the process ends; in a cluster, it must be set)")
	f.StringVar(&c.RegistryAPIKey, "registry-api-key", "",
		"`key` that requests to the registry carry, by https or not (default: the first API key, if one is set and the registry's URL is https)")
	f.StringVar(&c.RegistryAPIKeyFile, "registry-api-key-file", "",
		"`file` that holds the registry's key, instead of --registry-api-key")
}

func (c *Config) templateFlags(f *flag.FlagSet) {
	f.StringVar(&c.RegistryURL, "registry-url", "",
		"base `URL` of a Binder registry, such as http://registry:8082. It is asked for templates that are not in the cluster "+
			"(default: no registry)")
	f.StringVar(&c.PreloadHelperImage, "preload-helper-image", "registry.k8s.io/pause:3.10.1",
		"`image` that waits in the pods that preload templates. It must do nothing, and end on SIGTERM. "+
			"Change it if nodes cannot pull from registry.k8s.io")
}

func (c *Config) loggingFlags(f *flag.FlagSet) {
	f.StringVar(&c.LogFormat, "log-format", "auto",
		"`format` of the log on stderr: json, text, or auto, which is text on a terminal and else json")
	f.Var(&parsedFlag[slog.Level]{&c.LogLevel, parseLevel, "debug, info, warn or error"}, "log-level",
		"lowest `level` that is logged: debug, info, warn or error")
}

func (c *Config) otherFlags(f *flag.FlagSet) {
	f.StringVar(&c.ConfigFile, "config", "",
		"settings `file` of the Node server, in JSON. Only port, lookupHost, registry.host and registry.port have an effect; "+
			"a warning names all other keys")
	f.BoolVar(&c.Version, versionFlag, false, "print the version and exit")
}

// parsedFlag is a flag.Value whose error says what is allowed. The flag package's own types
// only say "parse error".
type parsedFlag[T any] struct {
	target  *T
	parse   func(string) (T, error)
	allowed string
}

func newDuration(target *time.Duration, value time.Duration) *parsedFlag[time.Duration] {
	*target = value
	return &parsedFlag[time.Duration]{target, time.ParseDuration, "a duration such as 90s, 30m or 1h30m"}
}

func newShare(target *float64, value float64) *parsedFlag[float64] {
	*target = value
	return &parsedFlag[float64]{target, parseShare, "a number from 0 to 1, such as 0.2"}
}

func parseShare(text string) (float64, error) {
	share, err := strconv.ParseFloat(text, 64)
	if err == nil && !(share >= 0 && share <= 1) { // as NaN
		err = strconv.ErrRange
	}
	return share, err
}

func newSwitch(target *bool, value bool) *parsedFlag[bool] {
	*target = value
	return &parsedFlag[bool]{target, strconv.ParseBool, "true or false"}
}

func parseLevel(text string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(text))
}

// String returns the value as text; the flag package also calls it on a zero flag.
func (v *parsedFlag[T]) String() string {
	if v.target == nil {
		return ""
	}
	return fmt.Sprint(*v.target)
}

// Set parses a value.
func (v *parsedFlag[T]) Set(text string) error {
	value, err := v.parse(text)
	if err != nil {
		return fmt.Errorf("it must be %s", v.allowed)
	}
	*v.target = value
	return nil
}

// IsBoolFlag reports whether the flag can stand alone, as in --launch-page.
func (v *parsedFlag[T]) IsBoolFlag() bool {
	_, ok := any(v.target).(*bool)
	return ok
}

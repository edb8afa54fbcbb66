package config

import (
	"flag"
	"fmt"
	"time"
)

func (c *Config) lifetimeFlags(f *flag.FlagSet) {
	f.Var(newDuration(&c.CullTimeout, time.Hour), "cull-timeout",
		"how long an instance can be idle before it is deleted, unless its launch or its template says otherwise")
	f.Var(newDuration(&c.MinCullTimeout, time.Minute), "min-cull-timeout",
		"the shortest cull timeout that a launch can ask for. It must not be longer than --cull-timeout. "+
			"An instance's activity is written at most once in a twelfth of it")
	f.Var(newDuration(&c.MaxCullTimeout, 24*time.Hour), "max-cull-timeout",
		"the longest cull timeout that a launch or a visitor can ask for. It must not be shorter than --cull-timeout")
	f.Var(newDuration(&c.CullWarning, 10*time.Minute), "cull-warning",
		"how long before its end clients that follow an instance are warned of that; 0 means never")
	f.Var(newDuration(&c.MaxAge, 12*time.Hour), "max-age",
		"how long an instance can live, however active; 0 means no limit. A template can set a shorter limit for its instances")
	f.Var(newDuration(&c.CullInterval, 30*time.Second), "cull-interval",
		"how often the culler runs. An instance can outlive its end by this long")
	f.Var(newShare(&c.MaxFailedShare, 0.2), "max-failed-share",
		"`share` of the instances, from 0 to 1, that one run of the culler can delete because they have failed; but 10 in any case. "+
			"If more fail at the same time, the cause is rather not theirs, and they may come back")
	f.Var(newDuration(&c.StartTimeout, 5*time.Minute), "start-timeout",
		"how long an instance can take to become ready before it counts as failed. The pull of its image counts too")
	f.Var(newDuration(&c.ShutdownDelay, 5*time.Second), "shutdown-delay",
		"how long to keep serving after SIGTERM, while /readyz fails, until load balancers send no more requests")
	f.Var(newDuration(&c.DrainTimeout, 20*time.Second), "drain-timeout",
		"how long running requests can take to finish after --shutdown-delay. The pod's terminationGracePeriodSeconds "+
			"must be longer than both together plus 10 seconds")
}

func (c *Config) validateDurations(m *mistakes) {
	for _, d := range []struct {
		flag  string
		value time.Duration
		least time.Duration
		rule  string
	}{
		{"cull-timeout", c.CullTimeout, 1, "be positive, such as 1h"},
		{"min-cull-timeout", c.MinCullTimeout, 1, "be positive, such as 1m"},
		{"max-cull-timeout", c.MaxCullTimeout, 1, "be positive, such as 24h"},
		{"cull-interval", c.CullInterval, 1, "be positive, such as 30s"},
		{"start-timeout", c.StartTimeout, 1, "be positive, such as 5m"},
		{"proxy-idle-timeout", c.ProxyIdleTimeout, 1, "be positive, such as 5m"},
		{"cull-warning", c.CullWarning, 0, "not be negative: 10m, or 0 for none"},
		{"max-age", c.MaxAge, 0, "not be negative: 12h, or 0 for no limit"},
		{"shutdown-delay", c.ShutdownDelay, 0, "not be negative: 5s, or 0 for none"},
		{"drain-timeout", c.DrainTimeout, 0, "not be negative: 20s, or 0 for none"},
	} {
		if d.value < d.least {
			m.add(fmt.Errorf("--%s is %s: it must %s", d.flag, d.value, d.rule), d.flag)
		}
	}
	if c.MinCullTimeout > c.CullTimeout {
		m.add(fmt.Errorf("--min-cull-timeout (%s) must not be longer than --cull-timeout (%s)", c.MinCullTimeout, c.CullTimeout),
			"min-cull-timeout", "cull-timeout")
	}
	if c.MaxCullTimeout < c.CullTimeout {
		m.add(fmt.Errorf("--max-cull-timeout (%s) must not be shorter than --cull-timeout (%s)", c.MaxCullTimeout, c.CullTimeout),
			"max-cull-timeout", "cull-timeout")
	}
}

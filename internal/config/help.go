package config

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// helpWidth is the most columns of a line of the help.
const helpWidth = 100

const helpIntro = `binder-deploy-kubernetes is Binder's deploy service for Kubernetes. It launches a container for each
visitor, routes the visitor's browser to it, and deletes it when it has been idle for too long.

It has no database: everything about an instance is on its pod. Run as many replicas as you like.

Usage:
  binder-deploy-kubernetes [flags]

Examples:
  In a pod, with the pod's service account:
    binder-deploy-kubernetes --api-key-file=/run/secrets/api-key --secret-file=/run/secrets/secret

  The same, with environment variables in place of flags:
    BINDER_API_KEY_FILE=/run/secrets/api-key BINDER_SECRET_FILE=/run/secrets/secret \
      binder-deploy-kubernetes

  Outside the cluster, with instances that end after 10 minutes without use:
    binder-deploy-kubernetes --kubeconfig=$HOME/.kube/config --cull-timeout=10m

Precedence:
  Each flag has an environment variable, shown in brackets. A flag takes precedence over its
  environment variable, the variable over the settings file (--config), and the file over the
  default. An empty environment variable counts as not set.

  A duration is a number with a unit: 90s, 30m, 24h, 1h30m.
`

// writeHelp writes what --help prints: the flags by subject, each with its default and
// its environment variable.
func writeHelp(out io.Writer) {
	fmt.Fprint(out, helpIntro)
	for _, group := range new(Config).flagGroups() {
		f := flag.NewFlagSet(group.heading, flag.ContinueOnError)
		group.define(f)
		fmt.Fprintf(out, "\n%s:\n", group.heading)
		f.VisitAll(func(f *flag.Flag) { writeFlagHelp(out, f) })
	}
}

func writeFlagHelp(out io.Writer, f *flag.Flag) {
	const indent = "        "
	placeholder, text := flag.UnquoteUsage(f)
	if _, ok := f.Value.(*parsedFlag[time.Duration]); ok {
		placeholder = "duration"
	}
	fmt.Fprintln(out, strings.TrimRight("  --"+f.Name+" "+placeholder, " ")) // a switch has no placeholder
	for _, line := range wrap(text, helpWidth-len(indent)) {
		fmt.Fprintln(out, indent+line)
	}
	switch {
	case f.Name == versionFlag:
	case f.DefValue == "":
		fmt.Fprintf(out, "%s[$%s]\n", indent, EnvName(f.Name))
	default:
		fmt.Fprintf(out, "%s(default %s) [$%s]\n", indent, f.DefValue, EnvName(f.Name))
	}
}

// wrap breaks text between words into lines of at most width bytes, where words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

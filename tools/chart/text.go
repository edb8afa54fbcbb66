package main

import (
	"fmt"
	"strings"
)

// list adds the elements of a value to a list, or to a mapping, indented by some spaces.
func list(value string, indent int) string {
	return lines(indent, "{{- with "+value+" }}", fmt.Sprintf("{{- toYaml . | nindent %d }}", indent), "{{- end }}")
}

// field adds a field that has a value's content, unless that is empty.
func field(name, value string, indent int) string {
	return lines(indent, "{{- with "+value+" }}", name+":", fmt.Sprintf("  {{- toYaml . | nindent %d }}", indent+2), "{{- end }}")
}

// ifDomain keeps text for instances with hosts of their own.
func ifDomain(text string) string {
	indent := len(text) - len(strings.TrimLeft(text, " "))
	return lines(indent, "{{- if .Values.instanceDomain }}") + text + lines(indent, "{{- end }}")
}

// except adds those of the operator's networks for which a condition holds to the exceptions
// of the instances' network policy.
func except(condition string) string {
	return lines(14, "{{- range .Values.networkPolicy.instancesExcept }}", "{{- if "+condition+" }}", "- {{ . }}", "{{- end }}", "{{- end }}")
}

// service adds annotations to one of the Services.
func service(name string) []edit {
	line := "  name: binder-" + name + "\n"
	return []edit{{line, line + field("annotations", ".Values.service."+name+".annotations", 2)}}
}

func lines(indent int, lines ...string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(strings.Repeat(" ", indent) + line + "\n")
	}
	return b.String()
}

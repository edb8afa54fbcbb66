package podtemplate

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// annotation describes one template annotation.
type annotation struct {
	key string
	// check returns what is wrong with a value.
	check func(value string) error
	// preventsLaunch is set if a template with an invalid value cannot be launched.
	// Else it is launched as if it did not have the annotation.
	preventsLaunch bool
	// copied is set if a pod gets a valid value as it is, so that the pod does not
	// depend on its template any more.
	copied bool
}

// annotationTable returns every template annotation.
func annotationTable() []annotation {
	return []annotation{
		{key: instance.PortAnnotation, check: check(parsePort), preventsLaunch: true},
		{key: instance.CullTimeoutAnnotation, check: check(parseDuration), preventsLaunch: true},
		{key: instance.MaxAgeAnnotation, check: check(parseDuration), preventsLaunch: true},
		{key: instance.MaxInstancesAnnotation, check: check(parseMaxInstances), preventsLaunch: true},
		{key: instance.TokenHeaderAnnotation, check: check(parseTokenHeader), preventsLaunch: true, copied: true},
		{key: instance.PoolSizeAnnotation, check: check(parsePoolSize)},
		{key: instance.PoolScheduleAnnotation, check: check(parsePoolSchedule)},
		{key: instance.SpecsAnnotation, check: check(parseSpecs)},
		{key: instance.TitleAnnotation, check: check(parseText(maxTitle))},
		{key: instance.DescriptionAnnotation, check: check(parseText(maxDescription))},
		{key: instance.IconAnnotation, check: check(parseIcon)},
		{key: instance.LogsAnnotation, check: checkLogs, copied: true},
		{key: instance.PortsAnnotation, check: checkPorts, copied: true},
		{key: instance.StripPrefixAnnotation, check: checkStripPrefix, copied: true},
		{key: instance.IdlePathsAnnotation, check: checkIdlePaths, copied: true},
		{key: instance.IdleRequestsAnnotation, check: checkIdlePaths, copied: true},
		{key: instance.HeartbeatFramesAnnotation, check: checkHeartbeatFrames, copied: true},
		{key: instance.ActivityProbeAnnotation, check: checkActivityProbe, copied: true},
	}
}

// Problem is an annotation of a template that has an invalid value.
type Problem struct {
	// Annotation is its key.
	Annotation string
	// Err names the annotation, its value and the allowed values.
	Err error
	// PreventsLaunch is true if the template cannot be launched. Else it is launched
	// as if it did not have the annotation.
	PreventsLaunch bool
}

// Problems returns every annotation of a template that is invalid.
func Problems(template *corev1.PodTemplate) []Problem {
	var problems []Problem
	for _, a := range annotationTable() {
		value, ok := template.Annotations[a.key]
		if !ok {
			continue
		}
		if err := a.check(value); err != nil {
			problems = append(problems, Problem{a.key, named(a.key, err), a.preventsLaunch})
		}
	}
	if problem := uselessSchedule(template); problem != nil {
		problems = append(problems, Problem{instance.PoolScheduleAnnotation, problem, false})
	}
	return problems
}

// Port returns the port that the application listens on: the annotation's, else the
// first TCP port that a container declares, else the one of Binder images.
func Port(template *corev1.PodTemplate) (int, error) {
	if port, err := parseAnnotation(template, instance.PortAnnotation, parsePort); port != 0 || err != nil {
		return port, err
	}
	for _, container := range template.Template.Spec.Containers {
		for _, port := range container.Ports {
			if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
				return int(port.ContainerPort), nil
			}
		}
	}
	return instance.DefaultPort, nil
}

// MaxInstances returns how many instances of a template may live at once, if there is a
// limit. The limit 0 pauses its launches.
func MaxInstances(template *corev1.PodTemplate) (most int, limited bool, err error) {
	_, limited = template.Annotations[instance.MaxInstancesAnnotation]
	most, err = parseAnnotation(template, instance.MaxInstancesAnnotation, parseMaxInstances)
	return most, limited, err
}

// The longest title and description, in characters.
const (
	maxTitle       = 80
	maxDescription = 500
)

// Texts returns what people read of a template: its title and its description. One that is
// missing or not valid is "".
func Texts(template *corev1.PodTemplate) (title, description string) {
	title, _ = parseAnnotation(template, instance.TitleAnnotation, parseText(maxTitle))
	description, _ = parseAnnotation(template, instance.DescriptionAnnotation, parseText(maxDescription))
	return title, description
}

// Titles returns a function that returns the title of the template of a name; "" if the source has
// no such template, or if that has no title.
func Titles(source Source) func(name string) string {
	return func(name string) string {
		template, err := source.Template(context.Background(), name)
		if err != nil {
			return ""
		}
		title, _ := Texts(template)
		return title
	}
}

// maxIcon is the longest icon, in bytes. The start page has one for each template.
const maxIcon = 16 << 10

// iconPattern matches the data URLs (RFC 2397) of pictures that browsers show in an img element.
var iconPattern = regexp.MustCompile(`^data:image/(?:png|jpeg|webp|svg\+xml);base64,([A-Za-z0-9+/]+={0,2})$`)

// Icon returns the picture of a template, as a data URL; "" if it is missing or not valid.
func Icon(template *corev1.PodTemplate) string {
	icon, _ := parseAnnotation(template, instance.IconAnnotation, parseIcon)
	return icon
}

func parseIcon(value string) (string, error) {
	data := iconPattern.FindStringSubmatch(value)
	if data != nil && len(value) <= maxIcon {
		if _, err := base64.StdEncoding.DecodeString(data[1]); err == nil {
			return value, nil
		}
	}
	if len(value) > 40 { // errors are for people
		value = value[:40] + "…"
	}
	return "", invalid(value, fmt.Sprintf("a picture as data:image/png;base64,…, or jpeg, webp or svg+xml, of at most %d bytes", maxIcon))
}

// parseText returns a function that reads a text of one line.
func parseText(most int) func(value string) (string, error) {
	return func(value string) (string, error) {
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		if n := utf8.RuneCountInString(value); n == 0 || n > most || !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable) {
			return "", invalid(value, fmt.Sprintf("a text of one line, of 1 to %d characters", most))
		}
		return value, nil
	}
}

// cullTimeout returns how long an instance may be idle; 0 if the template does not
// say.
func cullTimeout(template *corev1.PodTemplate) (time.Duration, error) {
	return parseAnnotation(template, instance.CullTimeoutAnnotation, parseDuration)
}

// maxAge returns how long an instance may live; 0 if the template does not say.
func maxAge(template *corev1.PodTemplate) (time.Duration, error) {
	return parseAnnotation(template, instance.MaxAgeAnnotation, parseDuration)
}

// parseAnnotation returns the zero value if the template does not have the
// annotation.
func parseAnnotation[T any](template *corev1.PodTemplate, key string, parse func(string) (T, error)) (value T, err error) {
	text, ok := template.Annotations[key]
	if !ok {
		return value, nil
	}
	if value, err = parse(text); err != nil {
		return value, named(key, err)
	}
	return value, nil
}

func named(key string, err error) error { return fmt.Errorf("annotation %s: %w", key, err) }

func check[T any](parse func(string) (T, error)) func(string) error {
	return func(value string) error {
		_, err := parse(value)
		return err
	}
}

func parsePort(value string) (int, error) {
	port, err := strconv.Atoi(value)
	if err != nil || port < 1 || port > 65535 {
		return 0, invalid(value, "a port (1 to 65535)")
	}
	return port, nil
}

func parseDuration(value string) (time.Duration, error) {
	duration, err := time.ParseDuration(value)
	if err != nil || duration <= 0 {
		return 0, invalid(value, "a positive duration such as 30m")
	}
	return duration, nil
}

func parseMaxInstances(value string) (int, error) {
	most, err := strconv.Atoi(value)
	if err != nil || most < 0 {
		return 0, invalid(value, "a whole number from 0 on")
	}
	return most, nil
}

// parseTokenHeader returns the valid value as it is.
func parseTokenHeader(value string) (string, error) {
	if _, _, err := instance.ParseTokenHeader(value); err != nil {
		allowed := fmt.Sprintf("a header field with the token in it, such as %q", instance.DefaultTokenHeader)
		return "", fmt.Errorf("%w: %w", invalid(value, allowed), err)
	}
	return value, nil
}

func checkLogs(value string) error {
	if value != instance.LogsOfStart {
		return invalid(value, instance.LogsOfStart)
	}
	return nil
}

func checkPorts(value string) error {
	if _, err := instance.ParsePorts(value); err != nil {
		return fmt.Errorf("%w: %w", invalid(value, fmt.Sprintf("ports from 1 to 65535, separated by commas, at most %d", instance.MaxPorts)), err)
	}
	return nil
}

func checkStripPrefix(value string) error {
	if value != "true" && value != "false" {
		return invalid(value, "true or false")
	}
	return nil
}

func checkIdlePaths(value string) error {
	if _, err := instance.CompileIdlePaths(value); err != nil {
		allowed := fmt.Sprintf("a regular expression in RE2 syntax of at most %d bytes", instance.MaxIdlePathsLength)
		return fmt.Errorf("%w: %w", invalid(value, allowed), err)
	}
	return nil
}

func checkHeartbeatFrames(value string) error {
	if _, _, err := instance.ParseHeartbeatFrames(value); err != nil {
		allowed := fmt.Sprintf("a size in bytes from 0 to %d, a space, and a regular expression in RE2 syntax of at most %d bytes",
			instance.MaxHeartbeatFrame, instance.MaxIdlePathsLength)
		return fmt.Errorf("%w: %w", invalid(value, allowed), err)
	}
	return nil
}

// checkActivityProbe leaves out the cause: what is allowed says as much.
func checkActivityProbe(value string) error {
	if _, err := instance.ParseProbePath(value); err != nil {
		return invalid(value, fmt.Sprintf("a path below the base URL such as api/kernels, without a slash at its start, "+
			"empty parts, dots for parts or a fragment, of at most %d bytes", instance.MaxProbePath))
	}
	return nil
}

// invalid says which values are allowed in place of one. It cuts a long value off,
// because logs and Events show it.
func invalid(value, allowed string) error {
	const most = 64
	ellipsis := ""
	if runes := []rune(value); len(runes) > most {
		value, ellipsis = string(runes[:most]), "..."
	}
	return fmt.Errorf("%q%s is not %s", value, ellipsis, allowed)
}

package instance

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

const (
	// lastOutputSize is how much of the end of a container's output is shown, in bytes. A
	// status is in every answer and list, and in an Event, so it must stay small.
	lastOutputSize = 512
	// mostOfLog is how much of a log the kubelet takes at most, in bytes
	// (MaxContainerTerminationMessageLogLength in pkg/kubelet/container).
	mostOfLog = 2048
	// lastOutputLines is how many lines of it are shown.
	lastOutputLines = 12
)

// terminalSequence matches what programs write to make a terminal show colours and the like
// (ECMA-48): control sequences, control strings up to their end, and other escapes.
var terminalSequence = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~])`)

// LastOutput returns the end of what a container put out before it ended with an error, as
// plain text, or "" if nothing is known of that. It is the termination message: what the
// container wrote to its terminationMessagePath, else the end of its log, if its policy is
// FallbackToLogsOnError.
// (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/)
//
// With other reasons than these two, it can be a text of the container runtime, and the kubelet
// says in its place what it could not read (pkg/kubelet/kuberuntime). Both can name what visitors
// must not see.
//
// The pod's id and token are taken out: logs and Events have neither, and applications like to
// print their address.
func LastOutput(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) string {
	if ended == nil || ended.ExitCode == 0 || ended.Reason != "Error" && ended.Reason != "OOMKilled" {
		return ""
	}
	said := ended.Message
	if strings.Contains(said, "Error on reading termination ") {
		return ""
	}
	if _, rest, more := strings.Cut(said, "\n"); len(said) >= mostOfLog && more {
		said = rest // the first line may be cut, in the middle of an id
	}
	text := strings.Trim(PlainOutput(pod, said), "\n")
	if lines := strings.Split(text, "\n"); len(lines) > lastOutputLines {
		text = "…\n" + strings.Join(lines[len(lines)-lastOutputLines:], "\n")
	}
	if len(text) <= lastOutputSize {
		return text
	}
	text = text[len(text)-lastOutputSize:]
	for !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return "…" + text
}

// PlainOutput returns what a container of a pod put out, as plain text: without what is for
// terminals, and without the pod's id and token.
func PlainOutput(pod *corev1.Pod, said string) string {
	text := terminalSequence.ReplaceAllString(strings.ToValidUTF8(said, "\uFFFD"), "")
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		line = line[strings.LastIndexByte(line, '\r')+1:]                                    // as a progress bar is seen in the end
		lines[i] = withoutSecrets(pod, strings.TrimRight(strings.Map(visible, line), " \t")) // any can be cut
	}
	return strings.Join(lines, "\n")
}

// ShowsLog reports whether visitors who wait for the instance of a pod may see its log.
// One that was Ready has been used, and its log tells of that.
func ShowsLog(pod *corev1.Pod) bool {
	return pod.Annotations[LogsAnnotation] == LogsOfStart && !WasReady(pod)
}

// ReadableLog returns the container whose log visitors may see. ok is false if it has none yet.
func ReadableLog(pod *corev1.Pod) (container string, ok bool) {
	serving := servingStatus(pod)
	if serving == nil || serving.State.Running == nil && serving.State.Terminated == nil {
		return "", false
	}
	return serving.Name, ShowsLog(pod)
}

// withoutSecrets replaces the id and the token of a pod in a text, which may have been cut in the
// middle of one.
func withoutSecrets(pod *corev1.Pod, text string) string {
	text = withoutSecret(text, pod.Labels[IDLabel], "[id]")
	return withoutSecret(text, pod.Annotations[TokenAnnotation], "[token]")
}

func withoutSecret(text, secret, name string) string {
	const few = 8 // so many characters of it tell nothing
	if len(secret) <= few {
		return text
	}
	text = strings.ReplaceAll(text, secret, name)
	for n := len(secret) - 1; n > few; n-- {
		if rest, cut := strings.CutPrefix(text, secret[len(secret)-n:]); cut {
			text = name + rest
		}
		if rest, cut := strings.CutSuffix(text, secret[:n]); cut {
			text = rest + name
		}
	}
	return text
}

// visible drops what would change how the text around it is read: controls, and invisible
// characters such as those that turn the direction of writing.
func visible(r rune) rune {
	if r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
		return -1
	}
	return r
}

// beforeLastOutput stands between the sentences of a message and the last output of a container.
const beforeLastOutput = " " + LastOutputFollows + "\n"

// withLastOutput adds to a message the last output of a container.
func withLastOutput(message, output string) string {
	if output == "" {
		return message
	}
	return message + beforeLastOutput + output
}

// CutLastOutput splits a message into its sentences and the last output of a container; "" if it
// has none.
func CutLastOutput(message string) (sentences, output string) {
	sentences, output, _ = strings.Cut(message, beforeLastOutput)
	return sentences, output
}

// endDetail is the cluster's text about the end of a container, without its last output.
func endDetail(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) string {
	if LastOutput(pod, ended) != "" {
		return detailOf(ended.Reason, "")
	}
	return detailOf(ended.Reason, withoutSecrets(pod, ended.Message))
}

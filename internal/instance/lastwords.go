package instance

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

const (
	// lastWordsSize is how much of the end of a container's output is shown, in bytes. A
	// status is in every answer and list, and in an Event, so it must stay small.
	lastWordsSize = 512
	// lastWordsLines is how many lines of it are shown.
	lastWordsLines = 12
)

// terminalSequence matches what programs write to make a terminal show colours and the like
// (ECMA-48): control sequences, control strings up to their end, and other escapes.
var terminalSequence = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~])`)

// LastWords returns the end of what a container put out before it ended with an error, as
// plain text, or "" if nothing is known of that. It is the termination message: what the
// container wrote to its terminationMessagePath, else the end of its log, if its policy is
// FallbackToLogsOnError.
// (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/)
//
// Only with these two reasons it is the container's. With others, it is a text of the kubelet
// or the container runtime, which can name what visitors must not see.
//
// The pod's id and token are taken out: logs and Events have neither, and applications like to
// print their address.
func LastWords(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) string {
	if ended == nil || ended.ExitCode == 0 || ended.Reason != "Error" && ended.Reason != "OOMKilled" {
		return ""
	}
	text := terminalSequence.ReplaceAllString(strings.ToValidUTF8(ended.Message, "\uFFFD"), "")
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		line = line[strings.LastIndexByte(line, '\r')+1:] // as a progress bar is seen in the end
		lines[i] = strings.TrimRight(strings.Map(visible, line), " \t")
	}
	text = withoutSecrets(pod, strings.Trim(strings.Join(lines, "\n"), "\n"))
	if lines = strings.Split(text, "\n"); len(lines) > lastWordsLines {
		text = "…\n" + strings.Join(lines[len(lines)-lastWordsLines:], "\n")
	}
	if len(text) <= lastWordsSize {
		return text
	}
	text = text[len(text)-lastWordsSize:]
	for !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return "…" + text
}

// withoutSecrets replaces the id and the token of a pod in a text.
func withoutSecrets(pod *corev1.Pod, text string) string {
	if id := pod.Labels[IDLabel]; id != "" {
		text = strings.ReplaceAll(text, id, "[id]")
	}
	if token := pod.Annotations[TokenAnnotation]; token != "" {
		text = strings.ReplaceAll(text, token, "[token]")
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

// beforeLastWords stands between the sentences of a message and the last words of a container.
const beforeLastWords = " The container's last output:\n"

// withLastWords adds to a message what a container said last.
func withLastWords(message, words string) string {
	if words == "" {
		return message
	}
	return message + beforeLastWords + words
}

// CutLastWords splits a message into its sentences and the last words of a container; "" if it
// has none.
func CutLastWords(message string) (sentences, words string) {
	sentences, words, _ = strings.Cut(message, beforeLastWords)
	return sentences, words
}

// endDetail is the cluster's text about the end of a container, without its last words.
func endDetail(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) string {
	if LastWords(pod, ended) != "" {
		return detailOf(ended.Reason, "")
	}
	return detailOf(ended.Reason, ended.Message)
}

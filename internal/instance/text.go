package instance

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Clip limits the length of a text that the cluster, a container or a registry chose,
// and makes it valid UTF-8: it goes into API answers, logs and Events. It cuts the middle
// out: the beginning says what was tried, and the end why that failed.
func Clip(text string) string {
	const most, tail = 512, 255 // in characters
	text = strings.ToValidUTF8(strings.TrimSpace(text), "\uFFFD")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-tail-1]) + "…" + string(runes[len(runes)-tail:])
	}
	return text
}

// wordOr returns a reason if it is one word, as in Kubernetes conditions, else another.
// The kubelet uses the text of an error that it does not know as a reason.
func wordOr(reason, other string) string {
	const most = 64
	if reason == "" || len(reason) > most {
		return other
	}
	for _, r := range reason {
		if r != '-' && r != '_' && r != '.' && r != '/' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return other
		}
	}
	return reason
}

// detailOf joins a reason and a text of the cluster.
func detailOf(reason, text string) string {
	return Clip(strings.TrimSuffix(reason+": "+strings.TrimSpace(text), ": "))
}

// sentence fills in what a text says about a container of a pod. how says how it ended;
// it is "" if it did not.
func sentence(text string, pod *corev1.Pod, container *corev1.ContainerStatus, how string) string {
	return Fill(text, "{port}", PodPort(pod), "{container}", container.Name, "{image}", Clip(container.Image), "{how}", how)
}

// advice says what a visitor can do, by who can mend a failure.
func advice(fault Fault) string {
	switch fault {
	case FaultTemplate:
		return launchingWillNotHelp
	case FaultCluster:
		return tryAgainLater
	case FaultVisitor, FaultChance:
		return launchNewOne
	}
	return ""
}

package pages

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// values are what stands for parts in the tests: what is hostile is of the cluster.
func values() map[string]string {
	return map[string]string{
		"{container}": `<b>{image}.</b>`, "{image}": `x.Ready.<script> %s%!d`, "{port}": "8888", "{code}": "-1", "{limit}": "512Mi",
		"{times}": "5", "{ahead}": "3", "{max}": "10", partTime: "1h5m11s", partAge: "12h0m0s", partTimeout: "6s", partHow: "exited with code 3",
	}
}

// Every text of messages is found in a message, alone and among others, and is said with all its
// parts.
func TestEveryTextIsFound(t *testing.T) {
	german := languageNamed(t, "de")
	words := values()
	words[partTime], words[partAge], words[partTimeout], words[partHow] = "1 Stunde und 5 Minuten", "12 Stunden", "6 Sekunden", "endete mit dem Code 3"
	for _, text := range messages() {
		message, want := text, german.texts[text]
		for _, part := range parts.FindAllString(text, -1) {
			if values()[part] == "" {
				t.Errorf("%q has a part without a value", text)
			}
		}
		fill := func(text string, values map[string]string) string {
			var pairs []string
			for part, value := range values {
				pairs = append(pairs, part, value)
			}
			return instance.Fill(text, pairs...)
		}
		message, want = fill(message, values()), fill(want, words)
		if got, known := german.message(message); got != want || !known {
			t.Errorf("%q is said as %q, want %q", message, got, want)
		}
		if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, ":") {
			continue
		}
		want = "Wartet auf einen Knoten. " + want + ` <new>. Bereit.`
		if got, _ := german.message("Waiting for a node. " + message + " <new>. Ready."); got != want {
			t.Errorf("%q is said as %q, want %q", message, got, want)
		}
	}
}

// What is no text of ours stays in English, and is marked as such; the sentences around it are
// translated. No part of a message becomes markup, a format, or another part.
func TestMessages(t *testing.T) {
	const again = "Ein neuer Start hilft nicht: Sag es dem Autor der Vorlage."
	for _, row := range []struct{ message, english, german string }{
		{"", "", ""},
		{"Something <new>. It is odd. Launch a new one.", "Something &lt;new&gt;. It is odd. Launch a new one.", `<span lang="en">Something &lt;new&gt;. It is odd.</span> Starte eine neue.`},
		{"Launch a new one. And more", "Launch a new one. And more", `Starte eine neue. <span lang="en">And more</span>`},
		{"exited with code 3 or so", "exited with code 3 or so", `<span lang="en">exited with code 3 or so</span>`},
		{"exited with code 3", "exited with code 3", "endete mit dem Code 3"},
		{"The application does not start: container a did odd things.", "The application does not start: container a did odd things.", `<span lang="en">The application does not start: container a did odd things.</span>`},
		{"The image <i>%d{image} cannot be downloaded. Launching again will not help: tell the author of the template.",
			"The image &lt;i&gt;%d{image} cannot be downloaded. Launching again will not help: tell the author of the template.", "Das Image &lt;i&gt;%d{image} kann nicht heruntergeladen werden. " + again},
		{"The application was not ready within 1m0s. Its last step was: Starting the application. Launch a new one.",
			"The application was not ready within 1 minute. Its last step was: Starting the application. Launch a new one.",
			"Die Anwendung war nach 1 Minute nicht bereit. Der letzte Schritt war: Die Anwendung startet. Starte eine neue."},
		{"The application was not ready within 5 parsecs.", "The application was not ready within 5 parsecs.", `<span lang="en">The application was not ready within 5 parsecs.</span>`},
		{"The application was not ready within 5mm.", "The application was not ready within 5mm.", "Die Anwendung war nach 5mm nicht bereit."},
		{"Ready. The container's last output:\nLaunch a new one. <b>", "Ready. The container&#39;s last output:\nLaunch a new one. &lt;b&gt;", "Bereit. Die letzte Ausgabe des Containers:\nLaunch a new one. &lt;b&gt;"},
	} {
		if got := string(english.html(quote(row.message))); got != row.english {
			t.Errorf("%q is said as %q, want %q", row.message, got, row.english)
		}
		if got := string(languageNamed(t, "de").html(quote(row.message))); got != row.german {
			t.Errorf("%q is said as %q, want %q", row.message, got, row.german)
		}
	}
}

// A visitor with a German browser reads in German why an instance failed, and a visitor of any of
// our languages reads nothing in English.
func TestFailuresAreTranslated(t *testing.T) {
	hostile := func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].Name, pod.Status.ContainerStatuses[0].Image = "<b>x", `"><script>alert(1)</script>`
		pod.Annotations[instance.DefaultContainerAnnotation] = "<b>x"
	}
	ended := func(state corev1.ContainerStateTerminated) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			kubetest.Broken(pod)
			hostile(pod)
			pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &state}
			pod.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}}
		}
	}
	podFailed := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, reason, message
		}
	}
	waiting := func(reason, message string) func(*corev1.Pod) {
		return kubetest.All(kubetest.StartingWith(reason, message), hostile)
	}
	unscheduled := func(message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			kubetest.Unscheduled(pod)
			pod.Status.Conditions[0].Message = message
		}
	}
	again := func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].RestartCount = 6 }
	refused := &corev1.Event{
		Reason: "Unhealthy", Message: "Readiness probe failed: dial tcp 10.0.0.7:8888: connect: connection refused",
		InvolvedObject: corev1.ObjectReference{UID: kubetest.Pod(kubetest.ID(1), kubetest.Noon).UID, FieldPath: "spec.containers{notebook}"},
	}
	refused.LastTimestamp.Time = kubetest.Noon.Add(time.Minute)
	const image = "Das Image &#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt; "
	for _, row := range []struct {
		name   string
		change func(*corev1.Pod)
		german string
	}{
		{"exit code", ended(corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", Message: "<i>No such file. Ready."}), "Die Anwendung ist zu Ende: Der Container &lt;b&gt;x endete mit dem Code 3. "},
		{"out of memory", ended(corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}), "Die Anwendung hatte nicht genug Speicher (Grenze 512Mi): Container &lt;b&gt;x. "},
		{"ends again and again", kubetest.All(waiting("CrashLoopBackOff", ""), ended(corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}), again), "endete mit dem Code 1"},
		{"no such image", waiting("ErrImagePull", "manifest unknown"), image + "ist nicht vorhanden, oder man braucht ein Passwort, um es herunterzuladen. Ein neuer Start hilft nicht: Sag es dem Autor der Vorlage."},
		{"image not allowed", waiting("ErrImagePull", "pull access denied"), "Dieser Cluster darf das Image "},
		{"image not pulled", waiting("ErrImagePull", "i/o timeout"), image + "kann im Moment nicht heruntergeladen werden: Seine Registry antwortet nicht. Der Knoten versucht es noch einmal."},
		{"not ready in time", kubetest.NotReadySince(kubetest.Noon), "Die Anwendung war nach 5 Minuten nicht bereit. "},
		{"evicted for disk", podFailed("Evicted", "Pod ephemeral local storage usage exceeds the total limit"), "Die Instanz hat mehr Plattenplatz belegt, als sie darf, und wurde beendet. Starte eine neue."},
		{"evicted for memory", podFailed("Evicted", "The node was low on resource: memory."), "Dem Knoten ging der Speicher oder der Plattenplatz aus, und er hat die Instanz beendet. Versuch es später noch einmal, oder sag es dem Betreiber dieses Dienstes."},
		{"no room", unscheduled("0/3 nodes are available: 3 Insufficient cpu."), "Die Anwendung war nach 5 Minuten nicht bereit. Wartet auf Platz: Der Cluster ist voll. Versuch es später"},
		{"node lost", podFailed("NodeLost", ""), "Der Knoten der Instanz ist verloren. Starte eine neue."},
		{"unknown", podFailed("Gremlins", "<b>"), "Der Cluster meldet ein Problem, das dieser Dienst nicht kennt."},
		{"nothing listens", kubetest.NotReadySince(kubetest.Noon), "aber auf Port 8888 der Adresse des Pods nimmt nichts Verbindungen an."},
	} {
		var warnings []*corev1.Event
		if row.name == "nothing listens" {
			warnings = append(warnings, refused)
		}
		inst := instance.FromPod(kubetest.Pod(kubetest.ID(1), kubetest.Noon, row.change), warnings, kubetest.Noon.Add(time.Hour), kubetest.StartTimeout)
		if inst.Status != instance.StatusFailed {
			t.Errorf("%s: %s", row.name, inst.Status)
		}
		for _, l := range ownSite().languages[1:] {
			for _, notice := range []Notice{FailedNotice(inst), OverNotice(instance.Instance{Template: "x", Status: instance.StatusDeleted, Reason: "Failed", Message: inst.Message})} {
				page := serveIn(l.tag, notice)
				if strings.Contains(page, `lang="en"`) || strings.Contains(page, "<b>x") || strings.Contains(page, "<i>") || strings.Contains(page, "<script>alert") {
					t.Errorf("%s, in %s: %s", row.name, l.tag, page)
				}
				if l.tag == "de" && !strings.Contains(page, row.german) {
					t.Errorf("%s: the page does not have %q: %s", row.name, row.german, page)
				}
			}
		}
	}
}

// serveIn returns a notice as a browser of a language gets it.
func serveIn(tag string, n Notice) string {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ownSite().Serve(w, r, n) })
	return serve(handler, http.MethodGet, "/", "", "Accept", browserAccept, "Accept-Language", tag).Body.String()
}

// The details of other pages are translated too: why an instance ended or was restarted, and why a
// launch was refused.
func TestDetailsAreTranslated(t *testing.T) {
	over := func(reason instance.EndReason, message string) Notice {
		return OverNotice(instance.Instance{Template: "x", Status: instance.StatusDeleted, Reason: string(reason), Message: message})
	}
	refused := func(err error) Notice { return notLaunchedNotice("x", "", protocol.AnswerFor(err)) }
	for _, row := range []struct {
		notice Notice
		german string
	}{
		{over(instance.EndCulled, instance.IdleMessage(3911*time.Second, time.Hour)), "Seit 1 Stunde und 5 Minuten nicht benutzt; die Frist dafür ist 1 Stunde."},
		{over(instance.EndExpired, instance.AgeMessage(12*time.Hour+9*time.Second, 12*time.Hour)), "Vor 12 Stunden gestartet; das Höchstalter ist 12 Stunden."},
		{over(instance.EndAbandoned, instance.AbandonedMessage(392*time.Second)), "Sie hat auf einen freien Platz gewartet, und 6 Minuten und 32 Sekunden lang hat niemand nach ihr gefragt."},
		{over(instance.EndGone, instance.Causes()[0].Message), "Der Pod wird auf seinem Knoten vorbereitet."},
		{over(instance.EndGone, "The operator of the cluster moved instances away from their node."), "Der Betreiber des Clusters hat Instanzen von ihrem Knoten genommen."},
		{refused(&admission.Refusal{Limit: admission.LaunchRate, Max: 20, RetryAfter: 90 * time.Second}), "Von einer Adresse sind höchstens 20 Starts in der Stunde erlaubt; versuch es in 1 Minute und 30 Sekunden noch einmal"},
		{refused(&admission.Refusal{Limit: admission.Paused}), "Starts sind im Moment angehalten"},
		{refused(&admission.Refusal{Limit: admission.TemplateInstances, Max: 2}), "Alle Plätze dieser Vorlage sind belegt"},
		{restartedNotice(instance.Instance{Template: "x", Restarts: 1, RestartReason: "ran out of memory (limit 2Gi)"}), "(hatte nicht genug Speicher (Grenze 2Gi))"},
	} {
		if page := serveIn("de", row.notice); !strings.Contains(page, row.german) || strings.Contains(page, `lang="en"`) {
			t.Errorf("the page does not have %q: %s", row.german, page)
		}
	}
}

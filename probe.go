package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	probeTimeout    = 2 * time.Second
	maxProbeAnswer  = 1 << 20
	maxProbeHeaders = 64 << 10
)

// ProbeResult is what came of asking an application; a label of a metric.
type ProbeResult string

const (
	ProbeBusy      ProbeResult = "busy"       // it is at work
	ProbeActive    ProbeResult = "active"     // it was, after what we know of, and not too long ago
	ProbeIdle      ProbeResult = "idle"       // it says neither
	ProbeNoAnswer  ProbeResult = "no_answer"  // nothing came, or not in time
	ProbeBadAnswer ProbeResult = "bad_answer" // no 200, no JSON, or too much of it
)

// probeVerdict reads what an application says of itself: execution_state "busy"
// anywhere is activity now, and else the latest last_activity counts if it is
// after last; one in the future counts as now. The time is zero unless the
// result is busy or active.
func probeVerdict(body []byte, last, now time.Time) (ProbeResult, time.Time) {
	busy, latest, err := findActivity(body)
	if err != nil {
		return ProbeBadAnswer, time.Time{}
	}
	if latest.After(now) {
		latest = now
	}
	// Annotations have milliseconds: what is finer would be later for ever.
	latest = latest.Truncate(time.Millisecond)
	switch {
	case busy:
		return ProbeBusy, now
	case latest.After(last):
		return ProbeActive, latest
	}
	return ProbeIdle, time.Time{}
}

// findActivity looks for both anywhere in a JSON text. It goes through it piece
// by piece: as values, a text of a MiB can take sixty times its size.
func findActivity(text []byte) (busy bool, latest time.Time, err error) {
	if !json.Valid(text) { // which a decoder does not tell of every text
		return false, time.Time{}, errors.New("not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var open []json.Delim // what the next piece is in, outermost first
	var name string       // of the member that it is the value of
	isName := false       // whether it is a name itself
	for {
		piece, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return busy, latest, nil
		}
		if err != nil {
			return false, time.Time{}, fmt.Errorf("read JSON: %w", err)
		}
		switch piece := piece.(type) {
		case json.Delim:
			if piece == '{' || piece == '[' {
				open = append(open, piece)
			} else {
				open = open[:len(open)-1]
			}
		case string:
			if isName {
				name, isName = piece, false
				continue
			}
			switch name {
			case "execution_state":
				busy = busy || piece == "busy"
			case "last_activity":
				if t, err := time.Parse(time.RFC3339, piece); err == nil && t.After(latest) {
					latest = t
				}
			}
		}
		name, isName = "", len(open) > 0 && open[len(open)-1] == '{'
	}
}

// errBadAnswer: something came that is no answer to a probe.
var errBadAnswer = errors.New("no answer that could be read")

// askActivity asks the application in a pod what it is doing. It goes to the
// pod's own address and port and to nowhere else: what answers is untrusted.
func askActivity(ctx context.Context, pod *corev1.Pod, probe *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if pod.Status.PodIP == "" {
		return nil, errors.New("the pod has no address")
	}
	base := &url.URL{Scheme: "http", Host: instance.PodAddress(pod), Path: "/"}
	if pod.Annotations[instance.StripPrefixAnnotation] != "true" {
		base.Path = instance.BaseURL(pod.Labels[instance.IDLabel])
	}
	target := base.JoinPath(probe.EscapedPath())
	target.RawQuery = probe.RawQuery
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the probe: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", instance.ManagerName)
	// One connection for one question: no proxy from the environment, no
	// compression that could grow. A transport follows no redirect.
	transport := &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxProbeHeaders,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: status %d", errBadAnswer, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxProbeAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer to the probe: %w", err)
	case len(body) > maxProbeAnswer:
		return nil, fmt.Errorf("%w: more than %d bytes", errBadAnswer, maxProbeAnswer)
	}
	return body, nil
}

// probe asks an application that seems to be idle. The time is zero unless it
// was active since we know.
func (c *Culler) probe(ctx context.Context, pod *corev1.Pod, path *url.URL) (ProbeResult, time.Time) {
	body, err := askActivity(ctx, pod, path)
	switch {
	case errors.Is(err, errBadAnswer):
		return ProbeBadAnswer, time.Time{}
	case err != nil:
		return ProbeNoAnswer, time.Time{}
	}
	last, _ := instance.LastActivity(pod) // what is idle has one
	now := c.now()
	result, active := probeVerdict(body, last, now)
	if at, _ := dueEnd(pod, active, now, c.policy); result == ProbeActive && !now.Before(at) {
		return ProbeIdle, time.Time{} // that was too long ago as well
	}
	return result, active
}

// reprieve reports whether an instance that nobody has used is to live on: its
// application is or was at work, as that is asked of it. What it says is written
// to the pod, and the next look at it goes by that. An application that does not
// answer gets no reprieve.
func (c *Culler) reprieve(ctx context.Context, pod *corev1.Pod) bool {
	value, asks := pod.Annotations[instance.ActivityProbeAnnotation]
	if !asks {
		return false
	}
	log := c.log.With("id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod))
	path, err := instance.ParseProbePath(value)
	if err != nil {
		return false // who wrote it has been told
	}
	result, active := c.probe(ctx, pod, path)
	c.metrics.Probed(string(result))
	if active.IsZero() {
		log.DebugContext(ctx, "idle, and its application is not at work", "probe", result)
		return false
	}
	switch _, err := writeActivity(ctx, c.pods, pod, use{active, instance.SourceProbe}); {
	case err == nil:
		log.InfoContext(ctx, "not culled: its application is or was at work", "probe", result, "active", instance.FormatTime(active))
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
	default:
		log.ErrorContext(ctx, "not culled: its application is or was at work, which could not be written", "probe", result, "error", err)
	}
	return true
}

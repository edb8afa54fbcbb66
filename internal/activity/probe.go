package activity

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

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// What an application may cost the culler, which must not wait for it for long.
const (
	probeTimeout    = 2 * time.Second // of one request
	probeAttempts   = 3               // until one is answered
	probePause      = time.Second     // between two of them
	maxProbeAnswer  = 1 << 20         // bytes
	maxProbeHeaders = 64 << 10        // bytes
)

// ProbeResult is the outcome of asking an application whether it is at work. It is
// the value of a metric's label.
type ProbeResult string

const (
	ProbeBusy      ProbeResult = "busy"       // it is at work
	ProbeActive    ProbeResult = "active"     // it was at work, later than the pod says, and not too long ago
	ProbeIdle      ProbeResult = "idle"       // neither
	ProbeNoAnswer  ProbeResult = "no_answer"  // no answer, or not in time
	ProbeBadAnswer ProbeResult = "bad_answer" // not a 200, not JSON, or too large
)

// ProbeResults lists every ProbeResult.
func ProbeResults() []ProbeResult {
	return []ProbeResult{ProbeBusy, ProbeActive, ProbeIdle, ProbeNoAnswer, ProbeBadAnswer}
}

// Probe asks the application of an instance that seems to be idle whether it is at
// work, at the path that its activity-probe annotation names. asked is false if
// there is no valid one. The time is zero unless the result is busy or active.
//
// Anything but a 200 with JSON of at most 1 MiB counts as idle. So does an application that
// answers none of three requests within 2 s: one alone is easily missed by an application
// or a node with much to do, and that is when an instance must not end.
func Probe(ctx context.Context, pod *corev1.Pod, rules lifetime.Rules, now func() time.Time) (result ProbeResult, active time.Time, asked bool) {
	value, annotated := pod.Annotations[instance.ActivityProbeAnnotation]
	if !annotated {
		return "", time.Time{}, false
	}
	path, err := instance.ParseProbePath(value)
	if err != nil { // an Event on the template says so
		return "", time.Time{}, false
	}
	body, err := fetchPatiently(ctx, pod, path)
	switch {
	case errors.Is(err, errBadAnswer):
		return ProbeBadAnswer, time.Time{}, true
	case err != nil:
		return ProbeNoAnswer, time.Time{}, true
	}
	answered := now()
	last, _ := instance.LastActivity(pod) // readable, or the instance would not be idle
	result, active = judgeAnswer(body, last, answered)
	if end, _ := rules.DueEnd(pod, active, answered); result == ProbeActive && !answered.Before(end) {
		return ProbeIdle, time.Time{}, true // that was too long ago as well
	}
	return result, active, true
}

// judgeAnswer reads what an application says of itself. execution_state "busy"
// anywhere is activity now. Otherwise the latest last_activity counts if it is after
// last. A time in the future counts as now.
func judgeAnswer(body []byte, last, now time.Time) (ProbeResult, time.Time) {
	busy, latest, err := findActivity(body)
	if err != nil {
		return ProbeBadAnswer, time.Time{}
	}
	if latest.After(now) {
		latest = now
	}
	// Annotations have milliseconds. Anything finer would always be later than last.
	latest = latest.Truncate(time.Millisecond)
	switch {
	case busy:
		return ProbeBusy, now
	case latest.After(last):
		return ProbeActive, latest
	}
	return ProbeIdle, time.Time{}
}

// findActivity looks for execution_state and last_activity anywhere in a JSON text.
// It reads token by token: decoded into values, a text can take sixty times its
// size in memory.
func findActivity(text []byte) (busy bool, latest time.Time, err error) {
	if !json.Valid(text) { // the decoder does not notice every error
		return false, time.Time{}, errors.New("not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var open []json.Delim // the objects and arrays around the next token, outermost first
	var name string       // of the member whose value the next token is
	isName := false       // whether the next token is a name itself
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return busy, latest, nil
		}
		if err != nil {
			return false, time.Time{}, fmt.Errorf("read JSON: %w", err)
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				open = append(open, token)
			} else {
				open = open[:len(open)-1]
			}
		case string:
			if isName {
				name, isName = token, false
				continue
			}
			switch name {
			case "execution_state":
				busy = busy || token == "busy"
			case "last_activity":
				if t, err := time.Parse(time.RFC3339, token); err == nil && t.After(latest) {
					latest = t
				}
			}
		}
		name, isName = "", len(open) > 0 && open[len(open)-1] == '{'
	}
}

// errBadAnswer is wrapped by errors about an answer that is not usable.
var errBadAnswer = errors.New("bad answer")

// fetchPatiently is fetch, repeated while there is no answer.
func fetchPatiently(ctx context.Context, pod *corev1.Pod, path *url.URL) (body []byte, err error) {
	for attempt := range probeAttempts {
		if attempt > 0 {
			select {
			case <-time.After(probePause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if body, err = fetch(ctx, pod, path); err == nil || errors.Is(err, errBadAnswer) {
			break
		}
	}
	return body, err
}

// fetch asks the application in a pod, and returns what it answers. It connects to
// the pod's own address and port and nowhere else: the application is untrusted.
func fetch(ctx context.Context, pod *corev1.Pod, path *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if pod.Status.PodIP == "" {
		return nil, errors.New("the pod has no address")
	}
	base := &url.URL{Scheme: "http", Host: instance.PodAddress(pod), Path: "/"}
	if pod.Annotations[instance.StripPrefixAnnotation] != "true" {
		base.Path = instance.BaseURL(pod.Labels[instance.IDLabel])
	}
	target := base.JoinPath(path.EscapedPath())
	target.RawQuery = path.RawQuery
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the probe: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", instance.ManagerName)
	instance.TokenOf(pod).Set(request.Header)
	// One connection for one question. There is no proxy from the environment, and no
	// compression: a small answer could become a huge one. A transport follows no redirect.
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

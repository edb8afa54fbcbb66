package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// rawKey finds the keys of scripts, which differ between two plays of a case.
var rawKey = regexp.MustCompile(`/raw/[0-9A-Z]{26}`)

// compare compares what came of a case directly and through the proxy.
func (c *test) compare(t Target, direct, proxied outcome, used *Counter) error {
	if len(direct.answers) != len(proxied.answers) {
		return fmt.Errorf("directly there are %d answers, through the proxy %d\ndirectly %.1000q\nproxied  %.1000q",
			len(direct.answers), len(proxied.answers), direct.raw, proxied.raw)
	}
	var problems []error
	for i := range direct.answers {
		level(answerDifferences(), t, &direct.answers[i], &proxied.answers[i], used)
		if what := differ(&direct.answers[i], &proxied.answers[i]); what != "" {
			problems = append(problems, fmt.Errorf("the client gets another %s in answer %d\ndirectly %s\nproxied  %s", what, i, &direct.answers[i], &proxied.answers[i]))
		}
	}
	if direct.kept && !proxied.kept && !c.mayClose {
		problems = append(problems, fmt.Errorf("the connection cannot be used again: it is %s after %.600q", proxied.ended, proxied.raw))
	}
	if final := proxied.final(); proxied.ended == endOpen && !proxied.kept && final.code() != 101 && !c.halfClosed() {
		problems = append(problems, fmt.Errorf("the connection is open, but a second request gets no answer: %.600q", proxied.raw))
	}
	return errors.Join(append(problems, c.compareSeen(t, direct.seen, proxied.seen, used))...)
}

// compareSeen compares what the application has got.
func (c *test) compareSeen(t Target, direct, proxied []rawapp.Record, used *Counter) error {
	if len(direct) != len(proxied) {
		return fmt.Errorf("directly the application got %d requests, through the proxy %d", len(direct), len(proxied))
	}
	for i := range direct {
		one, err := parseRequest(direct[i].Head, direct[i].Body)
		if err != nil {
			return err
		}
		other, err := parseRequest(proxied[i].Head, proxied[i].Body)
		if err != nil {
			return err
		}
		one.start, other.start = rawKey.ReplaceAllString(one.start, "/raw/KEY"), rawKey.ReplaceAllString(other.start, "/raw/KEY")
		if c.bodyMayBeCut {
			one.complete, other.complete, one.body, other.body = true, true, nil, nil
		} else if direct[i].Size != proxied[i].Size || direct[i].SHA256 != proxied[i].SHA256 || direct[i].Whole != proxied[i].Whole {
			return fmt.Errorf("the application gets another body: %d bytes, whole %t, and not %d, %t",
				proxied[i].Size, proxied[i].Whole, direct[i].Size, direct[i].Whole)
		} else if direct[i].Size > 48<<10 { // too long to be kept whole; the sums are equal
			one.complete, other.complete, one.body, other.body, one.trailers, other.trailers = true, true, nil, nil, nil, nil
		}
		level(requestDifferences(), t, &one, &other, used)
		if what := differ(&one, &other); what != "" {
			return fmt.Errorf("the application gets another %s\ndirectly %s\nproxied  %s", what, &one, &other)
		}
	}
	return nil
}

// differ names the first part that differs, or returns "".
func differ(a, b *message) string {
	switch {
	case a.start != b.start:
		return "first line"
	case !slices.Equal(a.fields, b.fields):
		return "field (" + strings.Join(differentNames(a.fields, b.fields), ", ") + ")"
	case a.framing != b.framing:
		return "framing"
	case !bytes.Equal(a.body, b.body):
		return "body"
	case a.complete != b.complete:
		return "end of the body"
	case !slices.Equal(a.trailers, b.trailers):
		return "trailer (" + strings.Join(differentNames(a.trailers, b.trailers), ", ") + ")"
	}
	return ""
}

func differentNames(a, b []field) (names []string) {
	for _, f := range append(slices.Clone(a), b...) {
		if !slices.Equal(valuesOf(a, f.name), valuesOf(b, f.name)) && !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	return names
}

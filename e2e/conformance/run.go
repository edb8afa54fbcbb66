package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/measure"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// Case is one case of the table.
type Case struct {
	Name string
	test test
}

// RunAll runs cases, at most limit of them at the same time. It writes their number, the
// time they took, and the allowed differences that were met into the measurements of the
// run. With subtests each case is a subtest.
func RunAll[C interface {
	Run(ctx context.Context, t Target, used *Counter) error
	fmt.Stringer
}](t *testing.T, what string, target Target, limit int, subtests bool, cases []C) {
	t.Helper()
	used, began := NewCounter(), time.Now()
	slots := make(chan struct{}, limit)
	run := func(c C) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		return c.Run(t.Context(), target, used)
	}
	if subtests {
		t.Run("cases", func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.String(), func(t *testing.T) {
					t.Parallel()
					if err := run(c); err != nil {
						t.Error(err)
					}
				})
			}
		})
	} else {
		var running sync.WaitGroup
		for _, c := range cases {
			running.Go(func() {
				if err := run(c); err != nil {
					t.Errorf("%s: %v", c, err)
				}
			})
		}
		running.Wait()
	}
	lines := []string{fmt.Sprintf("conformance, %s: %d cases in %s", what, len(cases), time.Since(began).Round(time.Millisecond))}
	for _, d := range Differences() {
		if n := used.Count(d); n > 0 {
			lines = append(lines, fmt.Sprintf("  allowed to the %-11s %4d times: %s", d.To, n, d.What))
		}
	}
	if err := measure.Write(strings.Join(lines, "\n")); err != nil {
		t.Error(err)
	}
}

// Cases returns all cases.
func Cases() []Case {
	var cases []Case
	names := map[string]bool{}
	for _, group := range []struct {
		name  string
		cases []test
	}{
		{"method", methodCases()}, {"path", pathCases()}, {"query", queryCases()}, {"request header", requestHeaderCases()},
		{"request body", requestBodyCases()}, {"expect", expectCases()}, {"status", statusCases()}, {"bad status", badStatusCases()},
		{"answer body", answerBodyCases()}, {"content type", contentTypeCases()}, {"answer header", answerHeaderCases()},
		{"interim", interimCases()}, {"streaming", streamingCases()}, {"connection", connectionCases()},
		{"early answer", earlyAnswerCases()}, {"cut short", cutCases()}, {"refused", refusedCases()}, {"broken answer", brokenAnswerCases()},
	} {
		for _, c := range group.cases {
			name := group.name + "/" + c.name
			for n := 2; names[name]; n++ {
				name = fmt.Sprintf("%s/%s %d", group.name, c.name, n)
			}
			names[name] = true
			cases = append(cases, Case{Name: name, test: c})
		}
	}
	return cases
}

// String returns the case's name, which is unique.
func (c Case) String() string { return c.Name }

// Run runs a case. It returns nil if the proxy is right. The allowed differences
// that it has met are counted in used.
func (c Case) Run(ctx context.Context, t Target, used *Counter) error {
	proxied, err := c.test.play(ctx, t, t.Proxy)
	if err != nil {
		return fmt.Errorf("through the proxy: %w", err)
	}
	if c.test.check != nil {
		if err := c.test.check(proxied); err != nil {
			return fmt.Errorf("%w\nthe client got %.600q (%s)", err, proxied.raw, proxied.ended)
		}
		return nil
	}
	direct, err := c.test.play(ctx, t, t.Direct)
	if err != nil {
		return fmt.Errorf("directly: %w", err)
	}
	return c.test.compare(t, direct, proxied, used)
}

// play plays a case once, at an address.
func (c *test) play(ctx context.Context, t Target, address string) (o outcome, err error) {
	key := newKey()
	if err := t.Control.Put(ctx, key, c.app...); err != nil {
		return o, fmt.Errorf("put the script: %w", err)
	}
	defer func() { err = errors.Join(err, t.Control.Delete(context.WithoutCancel(ctx), key)) }()
	conn, err := dial(ctx, address)
	if err != nil {
		return o, err
	}
	defer conn.close()
	for _, a := range c.acts() {
		if a.gone {
			conn.close()
			break
		}
		if err := a.do(ctx, t, conn, key); err != nil {
			return o, err
		}
	}
	if err := c.collect(ctx, t, conn, &o); err != nil {
		return o, err
	}
	conn.close() // ends what the application does with the request
	o.seen, err = t.settled(ctx, key)
	return o, err
}

// settled returns the requests that a script has got, once the application has
// finished with them.
func (t Target) settled(ctx context.Context, key string) (seen []rawapp.Record, err error) {
	for limit := time.Now().Add(patience); ; {
		seen, err = t.Control.Seen(ctx, key)
		open := func(r rawapp.Record) bool { return !r.Done }
		if err != nil || !slices.ContainsFunc(seen, open) || time.Now().After(limit) {
			return seen, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (a act) do(ctx context.Context, t Target, conn *client, key string) error {
	switch {
	case a.await != "":
		return conn.awaitText(ctx, a.await)
	case a.open != "":
		return t.Control.Open(ctx, key, a.open)
	case a.closeWrite:
		return conn.conn.CloseWrite()
	}
	data := []byte(strings.NewReplacer("{raw}", t.Base+"/raw/"+key, "{key}", t.APIKey).Replace(a.write))
	for range max(a.repeat, 1) {
		if err := conn.write(data); err != nil {
			return err
		}
		if got, ended := conn.state(); ended != endOpen || a.untilHeard && len(got) > 0 {
			return nil // the answer has come, and the rest of the body matters to nobody
		}
	}
	return nil
}

// collect waits for the answers, and then finds out what has become of the connection.
func (c *test) collect(ctx context.Context, t Target, conn *client, o *outcome) error {
	methods := c.wanted()
	if len(methods) == 0 {
		return nil
	}
	finals := 0
	err := conn.await(ctx, fmt.Sprintf("%d answers", len(methods)), func(got []byte, ended ending) bool {
		o.answers, _ = parseAnswers(got, methods, ended == endFIN)
		finals = 0
		for _, m := range o.answers {
			if m.complete && !m.interim() {
				finals++
			}
		}
		return finals == len(methods) || ended != endOpen
	})
	o.raw, o.ended = conn.state()
	if err != nil {
		return err
	}
	last := o.final()
	if o.ended == endOpen && finals == len(methods) && last.code() != 101 && !c.leaves {
		if last.closes() {
			if err := conn.await(ctx, "the announced end of the connection", func(_ []byte, ended ending) bool { return ended != endOpen }); err != nil {
				return err
			}
		} else if !c.halfClosed() {
			o.kept = c.probe(ctx, t, conn, methods)
		}
		_, o.ended = conn.state()
	}
	return nil
}

func (c *test) halfClosed() bool {
	for _, a := range c.acts() {
		if a.closeWrite {
			return true
		}
	}
	return false
}

// probe asks once more on the connection. A right answer means that both sides agree
// on where the last one ended.
func (c *test) probe(ctx context.Context, t Target, conn *client, methods []string) bool {
	key := newKey()
	if err := t.Control.Put(ctx, key, rawapp.Send(answer("299 Probe", key, "Content-Length: 26"))); err != nil {
		return false
	}
	defer func() { _ = t.Control.Delete(context.WithoutCancel(ctx), key) }()
	if err := conn.write([]byte("GET " + t.Base + "/raw/" + key + " HTTP/1.1\r\nHost: hub.example\r\n\r\n")); err != nil {
		return false
	}
	right := false
	_ = conn.await(ctx, "the answer to a second request", func(got []byte, ended ending) bool {
		all, used := parseAnswers(got, append(methods[:len(methods):len(methods)], "GET"), ended == endFIN)
		right = len(all) > 0 && all[len(all)-1].code() == 299 && string(all[len(all)-1].body) == key && used == len(got)
		return right || ended != endOpen
	})
	return right
}

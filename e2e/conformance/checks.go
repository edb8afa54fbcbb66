package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// all joins checks.
func all(checks ...func(outcome) error) func(outcome) error {
	return func(o outcome) error {
		var problems []error
		for _, check := range checks {
			problems = append(problems, check(o))
		}
		return errors.Join(problems...)
	}
}

// oneOf wants a complete final answer with one of the codes.
func oneOf(codes ...int) func(outcome) error {
	return func(o outcome) error {
		if final := o.final(); !slices.Contains(codes, final.code()) || !final.complete {
			return fmt.Errorf("got %q (complete %t), want one of %d", final.start, final.complete, codes)
		}
		return nil
	}
}

// ownAnswer wants an answer of the proxy's own: the application has got nothing.
func ownAnswer(codes ...int) func(outcome) error { return all(oneOf(codes...), nothingRun) }

func answerIs(body string) func(outcome) error {
	return func(o outcome) error {
		if got := string(o.final().body); got != body {
			return fmt.Errorf("the body is %q, want %q", got, body)
		}
		return nil
	}
}

// lacks wants that the client gets no such bytes.
func lacks(text string) func(outcome) error {
	return func(o outcome) error {
		if bytes.Contains(o.raw, []byte(text)) {
			return fmt.Errorf("%q reached the client", text)
		}
		return nil
	}
}

// badGateway wants 502 in place of an invalid answer.
func badGateway(o outcome) error { return oneOf(502)(o) }

func noInterim(o outcome) error {
	if len(o.answers) != 1 {
		return fmt.Errorf("got %d answers, want no interim one", len(o.answers))
	}
	return oneOf(200)(o)
}

// refusedBeforeContinue wants the application's refusal, and that nobody has asked for
// the body before.
func refusedBeforeContinue(status string) func(outcome) error {
	return func(o outcome) error {
		if len(o.answers) != 1 || !bytes.HasPrefix(o.raw, []byte("HTTP/1.1 "+status[:3]+" ")) || !o.answers[0].complete {
			return fmt.Errorf("got %d answers, want only %s", len(o.answers), status)
		}
		if len(o.seen) != 1 || !bytes.Contains(bytes.ToLower(o.seen[0].Head), []byte("\r\nexpect: 100-continue\r\n")) {
			return fmt.Errorf("the application has got %v, want the expectation", o.seen)
		}
		return nil
	}
}

// answeredOrClosed wants that the first request has its answer, and that the second
// has one, or that the connection has ended.
func answeredOrClosed(o outcome) error {
	if len(o.answers) == 0 || !o.answers[0].complete || o.answers[0].code() == 502 {
		return errors.New("the first request has no answer of the application's")
	}
	if len(o.answers) == 1 && o.ended == endOpen {
		return errors.New("the second request has no answer, and the connection is open")
	}
	if len(o.answers) == 2 && !o.answers[1].complete {
		return errors.New("the second answer is cut")
	}
	return nil
}

// badRequestAndClosed wants 400 and the end of the connection: nobody knows where the
// next request would begin. An application that does not read the body may have
// answered first.
func badRequestAndClosed(mayBeAnswered bool) func(outcome) error {
	return func(o outcome) error {
		code := o.final().code()
		if code != 400 && (code != 200 || !mayBeAnswered) {
			return fmt.Errorf("got %q, want 400", o.final().start)
		}
		if o.kept || o.ended == endOpen {
			return errors.New("the connection goes on")
		}
		for _, record := range o.seen {
			if record.Whole && !mayBeAnswered {
				return errors.New("the application got the message as a whole one")
			}
		}
		return nil
	}
}

// notHidden wants that what follows a broken body is not run as a request.
func notHidden(o outcome) error {
	for _, record := range o.seen {
		if bytes.Contains(record.Head, []byte("/hidden")) {
			return errors.New("what follows a broken body was run as a request")
		}
	}
	return nil
}

func notWhole(o outcome) error {
	for _, record := range o.seen {
		if record.Whole {
			return errors.New("the application got the message as a whole one")
		}
	}
	return nil
}

func nothingRun(o outcome) error {
	if len(o.seen) != 0 {
		return fmt.Errorf("the application got %d requests, want none: %v", len(o.seen), o.seen)
	}
	return nil
}

// refused wants an error of the proxy's, or a closed connection, and nothing at the
// application.
func refused(o outcome) error {
	if code := o.final().code(); code != 0 && (code < 400 || code > 505) {
		return fmt.Errorf("got %q, want an error", o.final().start)
	}
	if o.kept || o.ended == endOpen {
		return errors.New("the connection goes on")
	}
	return nothingRun(o)
}

// soundFraming wants that the application gets at most one request, with one framing,
// and that both agree about its end.
func soundFraming(o outcome) error {
	if len(o.seen) > 1 {
		return fmt.Errorf("the application got %d requests", len(o.seen))
	}
	for _, record := range o.seen {
		m, err := parseRequest(record.Head, record.Body)
		if err != nil {
			return err
		}
		if len(m.values("Content-Length"))+len(m.values("Transfer-Encoding")) > 1 {
			return fmt.Errorf("the application got two framings: %q", record.Head)
		}
	}
	if code := o.final().code(); code != 200 && code != 400 && code != 501 {
		return fmt.Errorf("got %q, want 200 or 400", o.final().start)
	}
	return nil
}

// brokenOff wants that an answer does not look whole.
func brokenOff(o outcome) error {
	if o.final().complete && o.final().code() != 502 {
		return errors.New("half an answer looks whole")
	}
	if !o.final().complete && o.ended == endOpen {
		return errors.New("the connection goes on")
	}
	return nil
}

// notFalse wants that bytes after an answer are not taken for another answer.
func notFalse(o outcome) error {
	if bytes.Contains(o.raw, []byte("false")) || !o.kept && o.ended == endOpen {
		return errors.New("bytes after the answer were taken for an answer")
	}
	return nil
}

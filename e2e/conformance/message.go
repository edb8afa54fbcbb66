package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// field is one header or trailer field, as it was on the wire.
type field struct{ name, value string }

func (f field) is(name string) bool { return strings.EqualFold(f.name, name) }

// framing says how the end of a body is found (RFC 9112, section 6.3).
type framing string

const (
	noBody   framing = "none"
	byLength framing = "content-length"
	byChunks framing = "chunked"
	byClose  framing = "close"
)

// message is a request or an answer.
type message struct {
	start    string
	fields   []field
	framing  framing
	body     []byte
	trailers []field
	// complete says that the body has come to its end.
	complete bool
}

// values returns the values of all fields of a name.
func (m *message) values(name string) []string { return valuesOf(m.fields, name) }

func valuesOf(fields []field, name string) (values []string) {
	for _, f := range fields {
		if f.is(name) {
			values = append(values, f.value)
		}
	}
	return values
}

// remove removes all fields of the names and reports whether there was one.
func (m *message) remove(names ...string) bool {
	before := len(m.fields)
	m.fields = slices.DeleteFunc(m.fields, func(f field) bool {
		return slices.ContainsFunc(names, f.is)
	})
	return len(m.fields) != before
}

// code is the status code of an answer, or 0.
func (m *message) code() int {
	parts := strings.SplitN(m.start, " ", 3)
	if len(parts) < 2 || len(parts[1]) != 3 {
		return 0
	}
	code, _ := strconv.Atoi(parts[1])
	return code
}

// interim reports whether another answer to the same request follows.
func (m *message) interim() bool { return m.code()/100 == 1 && m.code() != 101 }

func (m *message) closes() bool {
	return slices.ContainsFunc(m.values("Connection"), func(v string) bool { return strings.Contains(strings.ToLower(v), "close") }) ||
		strings.HasPrefix(m.start, "HTTP/1.0 ") && len(m.values("Connection")) == 0
}

func (m *message) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n", m.start)
	for _, f := range m.fields {
		fmt.Fprintf(&text, "%s: %.200q\n", f.name, f.value)
	}
	fmt.Fprintf(&text, "(%s, %d bytes, complete %t) %.300q", m.framing, len(m.body), m.complete, m.body)
	for _, f := range m.trailers {
		fmt.Fprintf(&text, "\ntrailer %s: %.200q", f.name, f.value)
	}
	return text.String()
}

// parseAnswers reads the answers to requests with the given methods. closed says that
// nothing follows data. It returns how many bytes it has read; a last answer that is
// not complete has the bytes that are there.
func parseAnswers(data []byte, methods []string, closed bool) (answers []message, used int) {
	for len(methods) > 0 {
		m, body, ok := parseHead(data[used:])
		if !ok {
			return answers, used
		}
		code := m.code()
		switch {
		case m.interim(), code == 101, code == 204, code == 304, methods[0] == "HEAD", methods[0] == "CONNECT" && code/100 == 2:
			m.framing, m.complete = noBody, true
		default:
			m.framing = framingOf(&m, byClose)
			body += readBody(&m, data[used+body:], closed)
		}
		answers = append(answers, m)
		if !m.complete {
			return answers, used + body
		}
		used += body
		if !m.interim() {
			methods = methods[1:]
		}
	}
	return answers, used
}

// parseRequest reads a recorded request.
func parseRequest(head, body []byte) (message, error) {
	m, _, ok := parseHead(head)
	if !ok {
		return m, fmt.Errorf("no head: %.200q", head)
	}
	m.framing = framingOf(&m, noBody)
	readBody(&m, body, true)
	return m, nil
}

// parseHead reads a start line and fields, and returns their length.
func parseHead(data []byte) (m message, length int, ok bool) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return m, 0, false
	}
	lines := strings.Split(string(data[:end]), "\r\n")
	m.start = lines[0]
	m.fields = parseFields(lines[1:])
	return m, end + 4, true
}

func parseFields(lines []string) (fields []field) {
	for _, line := range lines {
		if len(fields) > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			last := &fields[len(fields)-1] // obs-fold (RFC 9112, section 5.2)
			last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(line))
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, field{name, strings.Trim(value, " \t")})
	}
	return fields
}

func framingOf(m *message, otherwise framing) framing {
	coding := m.values("Transfer-Encoding")
	switch {
	case len(coding) > 0 && strings.EqualFold(coding[len(coding)-1], "chunked"):
		return byChunks
	case len(m.values("Content-Length")) > 0:
		return byLength
	}
	return otherwise
}

// readBody reads a body and returns how many bytes it took.
func readBody(m *message, data []byte, closed bool) int {
	switch m.framing {
	case byClose:
		m.body, m.complete = data, closed
		return len(data)
	case byLength:
		length, err := strconv.Atoi(m.values("Content-Length")[0])
		if err != nil || length < 0 {
			return 0
		}
		m.complete = len(data) >= length
		m.body = data[:min(length, len(data))]
		return len(m.body)
	case byChunks:
		return readChunks(m, data)
	}
	m.complete = true
	return 0
}

func readChunks(m *message, data []byte) (used int) {
	for {
		line, rest, found := bytes.Cut(data[used:], []byte("\r\n"))
		if !found {
			return used
		}
		size, err := strconv.ParseInt(strings.TrimSpace(strings.Split(string(line), ";")[0]), 16, 32)
		if err != nil {
			return used
		}
		used += len(line) + 2
		if size == 0 {
			return used + readTrailers(m, rest)
		}
		have := min(int(size), len(rest))
		m.body = append(m.body, rest[:have]...)
		used += have
		if !bytes.HasPrefix(rest[have:], []byte("\r\n")) {
			return used
		}
		used += 2
	}
}

func readTrailers(m *message, data []byte) (used int) {
	var lines []string
	for {
		line, _, found := bytes.Cut(data[used:], []byte("\r\n"))
		if !found {
			return used
		}
		used += len(line) + 2
		if len(line) == 0 {
			m.trailers, m.complete = parseFields(lines), true
			return used
		}
		lines = append(lines, string(line))
	}
}
